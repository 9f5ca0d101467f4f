"""What a decision means on a call: an answer, a hint, a hang-up, a wrap-up."""
