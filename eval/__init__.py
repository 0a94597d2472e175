"""How good pictures are, whoever made them.

- `eval.prompts`: prompt sets; `eval.world`: the drawn world's language;
- `eval.manifest`: a folder of pictures; `eval.scores`: the metrics of `eval.metrics` over it;
- `eval.statistics`: paired differences and their intervals; `eval.report`: the page that says them.
"""
