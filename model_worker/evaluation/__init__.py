"""How well a model decides, and what it writes: `offhook eval`. See docs/evaluation.md."""
