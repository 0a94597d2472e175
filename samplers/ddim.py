r"""DDIM and DDPM, which k-diffusion already has under another name.

With :math:`z = \sqrt{\bar\alpha}\, x_0 + \sqrt{1 - \bar\alpha}\, \epsilon` and :math:`\alpha, \alpha'` for
:math:`\bar\alpha` at this step and at the next, DDIM steps to (Song et al., eq. 12 and 16)

.. math::
    z' = \sqrt{\alpha'}\, D + \sqrt{1 - \alpha' - s^2}\, \epsilon + s\, n, \quad
    s = \eta \sqrt{\frac{1 - \alpha'}{1 - \alpha}} \sqrt{1 - \frac{\alpha}{\alpha'}}

where :math:`D` is the denoised prediction, :math:`\epsilon` the predicted and :math:`n` fresh noise. Let
:math:`x = z / \sqrt{\alpha} = x_0 + \sigma \epsilon`, so that :math:`\sigma^2 = (1 - \alpha) / \alpha` and
:math:`\alpha = 1 / (1 + \sigma^2)`. Divided by :math:`\sqrt{\alpha'}` the step becomes

.. math::
    x' = D + \sigma_\text{down}\, \epsilon + \sigma_\text{up}\, n, \quad
    \sigma_\text{up}^2 = \frac{s^2}{\alpha'}
                       = \eta^2 \frac{\sigma'^2 (\sigma^2 - \sigma'^2)}{\sigma^2}, \quad
    \sigma_\text{down}^2 = \sigma'^2 - \sigma_\text{up}^2

and since :math:`x = D + \sigma \epsilon`, the first two terms are
:math:`x + (\sigma_\text{down} - \sigma)\, \epsilon`: k-diffusion's ancestral Euler step, to the letter. The
posterior variance of DDPM (Ho et al., eq. 7; "fixed small" in diffusers) is :math:`s^2` at :math:`\eta = 1`.
So DDPM is DDIM(1), and DDIM(0) is Euler.

What remains of DDIM is where it steps: on the model's own noise levels, usually `schedule("leading", ...)`.
Stable Diffusion's configuration (`set_alpha_to_one=False`) ends its DDIM, but not its DDPM, at the smallest
noise level instead of zero: `schedule("leading", ..., final="sigma_min")`.

References:
    | Denoising Diffusion Implicit Models (Song et al., 2021)
    | https://arxiv.org/abs/2010.02502

    | Denoising Diffusion Probabilistic Models (Ho et al., 2020)
    | https://arxiv.org/abs/2006.11239
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor


def ddim(sample_euler_ancestral: Callable[..., Tensor]) -> Callable[..., Tensor]:
    r"""Returns DDIM, without fresh noise unless its option `eta` says so."""

    return partial(sample_euler_ancestral, eta=0.0)


def ddpm(sample_euler_ancestral: Callable[..., Tensor]) -> Callable[..., Tensor]:
    r"""Returns DDPM's ancestral sampling."""

    return partial(sample_euler_ancestral, eta=1.0)
