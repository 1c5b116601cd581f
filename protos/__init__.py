"""The wire and the stored form, as versioned protobuf packages.

The ``.proto`` files are the source; the modules beside them are made by ``make protos`` and
committed, so that the package installs without a compiler. A test makes them anew and compares.
"""
