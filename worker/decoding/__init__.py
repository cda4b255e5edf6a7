"""
Decoding in processes of its own: a crash, a hang or a memory blow-up of a decoder loses only the picture that did it.

What a picture is made of stands in ``worker.stages.decode``, and runs in the child unchanged. Here are the child
program, what it may still do, what both sides say to each other, and the parent's pool of children.
"""
