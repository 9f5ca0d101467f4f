"""The front door: the command line, the supervisor behind `offhook up`, the fake phone."""
