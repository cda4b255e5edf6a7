"""
The way of one upload, one module per stage; pure, but for the ports they are handed.

    intake ─▶ fetch ─▶ decode ─▶ perturb, embed ─▶ match ─▶ assess ─▶ decide ─▶ report ─▶ serialise

``decode`` stands on ``sniff``, ``opened`` (what Pillow is given of a file), ``colour``, ``one_footing`` (the one
re-encoding for all), ``preprocess`` and ``native_views``, and gives the views that the bank states; what the file says
of itself is read by ``manifest_store`` and ``unsigned_metadata``, what that means by ``provenance``. ``perturb`` makes
the copies that a picture in the grey zone is asked about, ``embed`` a sighting of features. ``match`` finds neighbours;
``assess`` is there where the bank carries a fitted judgement. ``decide`` stands on ``vote``, ``reasons``, ``evidence``
and ``credentials``.

Where a sighting is known already, decode and embed are skipped; encoding itself is the encoder's, behind its port. What
runs side by side, and in which order results leave, is ``worker/flow``. ``whole_picture`` and ``review_picture`` are
for reviewers, and have no part in a verdict.
"""
