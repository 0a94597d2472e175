"""How good pictures are, whoever made them.

- `eval.world`: the drawn world's language, `eval.judge`: which scene a picture of it shows;
- `eval.prompts`: prompt sets.
"""
