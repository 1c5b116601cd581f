"""Limits from the settings, in the form in which each part of the service takes its own."""

from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.server import ConnectionBounds
from connect_actor.settings import Settings

__all__ = ["channel_limits", "connection_bounds", "work_bounds"]


def channel_limits(settings: Settings) -> ChannelLimits:
    """Return the limits of new channels."""
    return ChannelLimits(
        dh_ratchet_every=settings.dh_ratchet_every,
        max_skip=settings.max_skip,
        max_skipped_keys=settings.max_skipped_keys,
        lifetime=settings.channel_lifetime,
        one_time_prekeys=settings.one_time_prekeys,
        redelivery_window=settings.redelivery_window,
    )


def work_bounds(settings: Settings) -> Bounds:
    """Return how much work the service takes on at a time."""
    return Bounds(
        max_operations=settings.max_operations_in_service,
        max_bytes=settings.max_bytes_in_service,
        max_stream_bytes=settings.max_stream_bytes,
        slow_reader_timeout=settings.slow_reader_timeout,
        message_timeout=settings.message_timeout,
        stream_idle_timeout=settings.stream_idle_timeout,
    )


def connection_bounds(settings: Settings) -> ConnectionBounds:
    """Return the limits of connections."""
    return ConnectionBounds(
        max_connections=settings.max_connections,
        max_calls=settings.max_calls,
        max_calls_per_connection=settings.max_calls_per_connection,
        keepalive_interval=settings.keepalive_interval,
        keepalive_timeout=settings.keepalive_timeout,
        idle_timeout=settings.connection_idle_timeout,
        handshake_timeout=settings.handshake_timeout,
    )
