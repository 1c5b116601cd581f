"""The lab: load on a real service over real gRPC, and honest comparisons of what it did."""
