"""Speed, measured: each module prints its figures, and none of them is a test. `offhook bench` lists them."""
