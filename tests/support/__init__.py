"""What several tests need: channels made in memory, conversations, failing journals."""
