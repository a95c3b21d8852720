// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/server_metrics.h"

#include <gtest/gtest.h>

#include <memory>

#include "server/base/thread.h"

namespace millrace {
namespace {

double Value(const ServerMetrics& metrics, const Metric& metric, const std::string& label = "") {
  for (const Sample& sample : metrics.Collect()) {
    if (sample.metric == &metric && (label.empty() || sample.labels.front() == label)) {
      return std::get<double>(sample.value);
    }
  }
  return -1;
}

TEST(ServerMetrics, StreamsAndRequestsBegunByOneThreadMayEndOnAnother) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  for (int i = 0; i < 100; ++i) {
    metrics.StreamOpened();
    metrics.RequestReceived(InferRpc::kModelStreamInfer);
    metrics.RequestReceived(InferRpc::kModelInfer);
  }
  auto ends = std::make_unique<Thread>("end", [&metrics] {
    for (int i = 0; i < 60; ++i) metrics.StreamClosed();
    for (int i = 0; i < 70; ++i) metrics.RequestFinished(InferRpc::kModelStreamInfer);
    metrics.UnknownModel();
  });
  ends.reset();
  EXPECT_EQ(Value(metrics, kStreams), 40);
  EXPECT_EQ(Value(metrics, kStreamsOpenedTotal), 100);
  EXPECT_EQ(Value(metrics, kServerInFlight, "ModelStreamInfer"), 30);
  EXPECT_EQ(Value(metrics, kServerInFlight, "ModelInfer"), 100);
  EXPECT_EQ(Value(metrics, kReceivedTotal, "ModelInfer"), 100);
  EXPECT_EQ(Value(metrics, kUnknownModelTotal), 1);
}

TEST(ServerMetrics, BytesThatStreamsHoldGoUpAndDown) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  metrics.StreamHolds(1000);
  metrics.StreamHolds(0);
  metrics.StreamHolds(50);
  EXPECT_EQ(Value(metrics, kStreamHeldBytes), 1050);
  metrics.StreamHolds(-1000);
  EXPECT_EQ(Value(metrics, kStreamHeldBytes), 50);
}

TEST(ServerMetrics, ReorderBufferHoldsAnswersThatAreThereAndHaveNotLeft) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  for (int i = 0; i < 5; ++i) metrics.AnswerDecided();
  metrics.AnswerLeft(absl::Milliseconds(3));
  EXPECT_EQ(Value(metrics, kReorderBuffer), 4);
  metrics.AnswersDropped(4);
  EXPECT_EQ(Value(metrics, kReorderBuffer), 0);
}

TEST(ServerMetrics, HeadOfLineWaitIsThatOfAnswersThatLeft) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  metrics.AnswerLeft(absl::Milliseconds(3));
  metrics.AnswerLeft(absl::Milliseconds(5));
  metrics.AnswersDropped(1);
  for (const Sample& sample : metrics.Collect()) {
    if (sample.metric != &kHeadOfLineWait) continue;
    EXPECT_NEAR(std::get<HistogramValue>(sample.value).sum, 0.008, 1e-9);
  }
}

TEST(ServerMetrics, MessagesOfStreamsAreCountedBothWays) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  metrics.RequestReceived(InferRpc::kModelStreamInfer);
  metrics.RequestReceived(InferRpc::kModelStreamInfer);
  metrics.RequestReceived(InferRpc::kModelInfer);
  metrics.AnswerWritten();
  EXPECT_EQ(Value(metrics, kStreamMessagesTotal, "read"), 2);
  EXPECT_EQ(Value(metrics, kStreamMessagesTotal, "written"), 1);
}

TEST(ServerMetrics, CertificatesExpiryIsShownOnceItIsKnown) {
  ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  EXPECT_EQ(Value(metrics, kTlsExpiry), -1);
  metrics.SetTlsCertificateExpiry(absl::FromUnixSeconds(2'000'000'000));
  EXPECT_EQ(Value(metrics, kTlsExpiry), 2e9);
}

TEST(ServerMetrics, BuildInfoCarriesTheVersions) {
  const ServerMetrics metrics({"1.2.3", "1.51.1", "2.13.0", "0123abc"});
  EXPECT_EQ(Value(metrics, kBuildInfo, "1.2.3"), 1);
}

}  // namespace
}  // namespace millrace
