# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# An RTSP server on loopback: perl rtsp_server.pl PUBLISHERS_PORT PLAYERS_PORT FIRST_RTP_PORT
# What is pushed to rtsp://127.0.0.1:PUBLISHERS_PORT/name is played at
# rtsp://127.0.0.1:PLAYERS_PORT/name, over UDP, or interleaved in the player's TCP connection.
use strict;
use warnings;
use AnyEvent;
use RTSP::Server;

# RTSP::Server plays over UDP only. What follows adds RFC 2326, 10.12: a packet is "$", its channel,
# its length in two bytes and itself, between the answers of the same connection.
my $player = RTSP::Server::Client::Connection->meta;
$player->make_mutable;
my %channels;  # By connection: a stream's channels for RTP and RTCP.

$player->add_around_method_modifier(setup => sub {
  my ($setup, $self) = @_;
  my $transport = $self->get_req_header('Transport') // '';
  my ($rtp, $rtcp) = $transport =~ m{^RTP/AVP/TCP\b.*\binterleaved=(\d+)-(\d+)}i
    or return $self->$setup;
  my ($mount, $id) = $self->get_mount;
  my $stream = $mount && $mount->get_stream($id ||= 0) or return $self->not_found;
  skip_packets($self->h) unless $channels{$self->id};
  $channels{$self->id}{$id} = [$rtp, $rtcp];
  $stream->add_client($self);
  $self->add_resp_header('Transport', $transport);
  $self->push_ok;
});

$player->add_around_method_modifier(send_packet => sub {
  my ($send, $self, $id, $packet) = @_;
  my $pair = $channels{$self->id} && $channels{$self->id}{$id} or return $self->$send($id, $packet);
  my $type = ord substr $packet, 1, 1;
  my $is_rtcp = $type >= 200 && $type <= 204;
  $self->h->push_write(pack 'a C n/a', '$', $pair->[$is_rtcp], $packet);
});

# Players send RTCP the same way, which the server would take for requests.
sub skip_packets {
  my ($handle) = @_;
  my $requests = $handle->{on_read};
  $handle->on_read(sub {
    my ($self) = @_;
    return $requests->($self) if substr($self->{rbuf}, 0, 1) ne '$';
    my $length = length $self->{rbuf} < 4 ? 0xFFFF : unpack 'x2 n', $self->{rbuf};
    substr($self->{rbuf}, 0, 4 + $length, '') if length $self->{rbuf} >= 4 + $length;
  });
}

my ($publishers, $players, $rtp) = @ARGV;
my $server = RTSP::Server->new(
  source_listen_address => '127.0.0.1', source_listen_port => $publishers,
  client_listen_address => '127.0.0.1', client_listen_port => $players,
  rtp_start_port => $rtp);
$server->listen;
AnyEvent->condvar->recv;
