"""One thread of torch in each of pytest's processes, of which there is one a core."""

import torch

torch.set_num_threads(1)
