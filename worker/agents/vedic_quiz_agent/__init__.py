"""Agent that makes and grades a quiz from a built-in bank of questions."""
