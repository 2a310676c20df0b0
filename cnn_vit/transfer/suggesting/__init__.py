"""A checkpoint that no rule knows -> what network it may hold, and a first file of rules for it.

    layers.py       names -> layers: which arrays belong together, what their names say, which of them repeat
    blocks.py       the layers of one block of a transformer: attention, MLP, norms
    transformer.py  a whole one: patches, class token, positions, blocks, head
    sequence.py     convolutions and dense layers one behind the other
    alignment.py    any network of ours that is named: by shape and order
    proposal.py     what all of them answer, and its text as a file of rules

Each line is marked: sure where shapes or plain words leave nothing else, else guessed, with what is not known. Nothing
is chosen in silence.
"""
