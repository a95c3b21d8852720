# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# An RTSP server on loopback: perl rtsp_server.pl PUBLISHERS_PORT PLAYERS_PORT FIRST_RTP_PORT
# What is pushed to rtsp://127.0.0.1:PUBLISHERS_PORT/name is played at
# rtsp://127.0.0.1:PLAYERS_PORT/name, over UDP.
use strict;
use warnings;
use AnyEvent;
use RTSP::Server;

my ($publishers, $players, $rtp) = @ARGV;
my $server = RTSP::Server->new(
  source_listen_address => '127.0.0.1', source_listen_port => $publishers,
  client_listen_address => '127.0.0.1', client_listen_port => $players,
  rtp_start_port => $rtp);
$server->listen;
AnyEvent->condvar->recv;
