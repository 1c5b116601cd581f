"""A client for both ends of a channel: application calls and the peer that holds the other end."""

from service.access.client_tls import ClientTls as ClientTls
from service.client.channel import Channel as Channel
from service.client.client import ConnectClient as ConnectClient
from service.client.errors import error_of as error_of
from service.client.exchange import ExchangeStream as ExchangeStream
from service.client.exchange import require_success as require_success
from service.protocol.handshake import Initiation as Initiation
from service.protocol.keys import Identity as Identity
