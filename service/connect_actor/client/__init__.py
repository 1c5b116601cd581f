"""A client for both ends of a channel: application calls and the peer that holds the other end."""

from connect_actor.client.channel import Channel as Channel
from connect_actor.client.client import ConnectClient as ConnectClient
from connect_actor.client.errors import error_of as error_of
from connect_actor.client.exchange import ExchangeStream as ExchangeStream
from connect_actor.client.exchange import require_success as require_success
from connect_actor.network.client_tls import ClientTls as ClientTls
from connect_actor.protocol.handshake import Initiation as Initiation
from connect_actor.protocol.keys import Identity as Identity
