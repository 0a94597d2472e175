r"""How to walk from noise to a sample.

Three steps, each a plain function of tensors, around any denoiser with k-diffusion's contract
(`model(x, sigma, **extra_args) -> denoised`, :math:`x = x_0 + \sigma \epsilon`):

>>> sigmas = samplers.schedule("karras", model, 30)
>>> noise = samplers.noise((4, 64, 64), seeds=[0, 1, 2])
>>> x = samplers.sample(model, noise, sigmas, sampler="dpmpp_2m", extra_args={"cond": c})

- `schedule` turns a name and a number of steps into noise levels (`SCHEDULES` lists the names);
- `noise` draws every image from its own seed;
- `sample` walks down the noise levels with k-diffusion's samplers, DDIM or DDPM (`SAMPLERS` lists the names),
  with a progress bar, a hook that may change :math:`x` at every step or stop, and a trace for anyone who
  looks; both are given a `Step`. An image does not depend on the batch it is in.

The room knows nothing of text or captions. What cannot be used as given is a `SamplerError` of one line.
"""

from .errors import SamplerError
from .pictures import Picture, denoise_levels
from .progress import Progress
from .registry import SAMPLERS
from .sampling import Hook, Step, Trace, calls, sample
from .schedules import SCHEDULES, schedule
from .seeding import noise

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "Hook",
    "Picture",
    "Progress",
    "SamplerError",
    "Step",
    "Trace",
    "calls",
    "denoise_levels",
    "noise",
    "sample",
    "schedule",
]
