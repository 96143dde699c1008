"""From a program to its results: order, memory, tables for the interpreter, threads, and the tokens of a batch."""
