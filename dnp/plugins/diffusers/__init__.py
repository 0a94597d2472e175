r"""Guidances inside diffusers, by their formula. Tested with diffusers 0.42.

- :class:`FormulaGuider`: a guider of Modular Diffusers.
- :func:`guide`: an ordinary pipeline (Stable Diffusion, XL, 3, Flux) run with our denoiser and samplers.
- :class:`DNPPipeline`: diffusion-negative prompting with a pipeline's model.

.. code-block:: python

    guided = guide(pipeline, "u + 7.5*(p - u) - 2*(n - u)")
    image = guided("a cat", negative_prompt="a dog", seeds=0).images[0]
"""

from dnp.plugins.diffusers.dnp_pipeline import DNPPipeline, DNPPipelineOutput
from dnp.plugins.diffusers.formula_guider import FormulaGuider
from dnp.plugins.diffusers.guide import Guided, guide

__all__ = ["DNPPipeline", "DNPPipelineOutput", "FormulaGuider", "Guided", "guide"]
