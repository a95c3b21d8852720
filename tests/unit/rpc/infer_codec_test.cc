// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_codec.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "grpcpp/support/slice.h"
#include "gtest/gtest.h"
#include "proto/grpc_service.pb.h"
#include "tests/unit/rpc/infer_codec_oracle.h"

namespace millrace {
namespace {

using google::protobuf::TextFormat;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

ModelInferRequest FromText(const std::string& text) {
  ModelInferRequest request;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

DecodedRequest Decode(const std::string& text, std::vector<size_t> sizes = {}) {
  return DecodeInferRequest(Sliced(FromText(text).SerializeAsString(), sizes));
}

// The error for a request with one good FP32 input "x" of shape [1], and `more`.
std::string ErrorOf(const std::string& more) {
  const DecodedRequest decoded = Decode(
      "inputs { name: 'x' datatype: 'FP32' shape: 1 } raw_input_contents: 'abcd' id: '7' " + more);
  EXPECT_EQ(decoded.request.id, "7");
  EXPECT_EQ(decoded.status.ok() ? absl::StatusCode::kInvalidArgument : decoded.status.code(),
            absl::StatusCode::kInvalidArgument);
  return std::string(decoded.status.message());
}

std::string ParameterError(const std::string& key, const std::string& value) {
  return ErrorOf("parameters { key: '" + key + "' value { " + value + " } }");
}

// The error for a single input with these fields.
std::string TypedError(const std::string& input) {
  return std::string(Decode("inputs { name: 'x' " + input + " }").status.message());
}

std::string BytesOf(const Payload& payload) {
  std::string bytes(payload.size(), '\0');
  payload.CopyTo(0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
  return bytes;
}

template <typename T>
std::vector<T> ElementsOf(const Payload& payload) {
  std::vector<T> elements(payload.size() / sizeof(T));
  std::memcpy(elements.data(), BytesOf(payload).data(), payload.size());
  return elements;
}

TEST(DecodeInferRequest, FillsEveryField) {
  const DecodedRequest decoded = Decode(
      "model_name: 'resnet' model_version: '3' id: 'r-1' "
      "parameters { key: 'timeout' value { int64_param: 2500 } } "
      "parameters { key: 'priority' value { uint64_param: 3 } } "
      "parameters { key: 'millrace_timings' value { bool_param: true } } "
      "inputs { name: 'a' datatype: 'FP32' shape: [ 2, 1 ] } "
      "inputs { name: 'b' datatype: 'INT8' shape: 3 } "
      "outputs { name: 'p' } outputs { name: 'q' parameters { key: "
      "'classification' value { int64_param: 3 } } } "
      "raw_input_contents: '01234567' raw_input_contents: 'xyz'");
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  const Request& request = decoded.request;
  EXPECT_EQ(request.model_name, "resnet");
  EXPECT_EQ(request.model_version, "3");
  EXPECT_EQ(request.id, "r-1");
  EXPECT_EQ(request.timeout, absl::Microseconds(2500));
  EXPECT_EQ(request.priority, 3);
  EXPECT_TRUE(request.wants_timings);
  ASSERT_EQ(request.requested_outputs.size(), 2);
  EXPECT_EQ(request.requested_outputs[0].name, "p");
  EXPECT_EQ(request.requested_outputs[1].name, "q");
  EXPECT_EQ(request.requested_outputs[0].classes, 0);
  EXPECT_EQ(request.requested_outputs[1].classes, 3);
  ASSERT_EQ(request.inputs.size(), 2);
  EXPECT_EQ(request.inputs[0].name, "a");
  EXPECT_EQ(request.inputs[0].data_type, "FP32");
  EXPECT_THAT(request.inputs[0].shape, ElementsAre(2, 1));
  EXPECT_EQ(BytesOf(request.inputs[0].payload), "01234567");
  EXPECT_EQ(BytesOf(request.inputs[1].payload), "xyz");
}

TEST(DecodeInferRequest, RawContentsAreNotCopied) {
  ModelInferRequest message = FromText("inputs { name: 'x' datatype: 'UINT8' shape: 100000 }");
  message.add_raw_input_contents(std::string(100000, 'z'));
  const grpc::ByteBuffer received = Sliced(message.SerializeAsString(), {30000});
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(received.Dump(&slices).ok());
  const DecodedRequest decoded = DecodeInferRequest(received);
  ASSERT_TRUE(decoded.status.ok());
  const auto pieces = decoded.request.inputs[0].payload.pieces();
  ASSERT_EQ(pieces.size(), slices.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto* end = reinterpret_cast<const uint8_t*>(pieces[i].data() + pieces[i].size());
    EXPECT_EQ(end, slices[i].end());
  }
}

TEST(DecodeInferRequest, ThePayloadOutlivesTheMessage) {
  DecodedRequest decoded = Decode(
      "inputs { name: 'x' datatype: 'UINT8' shape: 40 } "
      "raw_input_contents: '0123456789012345678901234567890123456789'",
      {7});  // Slices that short hold their bytes themselves.
  const Request moved = std::move(decoded.request);
  EXPECT_EQ(BytesOf(moved.inputs[0].payload), "0123456789012345678901234567890123456789");
}

TEST(DecodeInferRequest, AnEmptyMessageIsAnEmptyRequest) {
  const DecodedRequest decoded = DecodeInferRequest(Sliced("", {}));
  EXPECT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_TRUE(decoded.request.inputs.empty());
}

TEST(DecodeInferRequest, AMalformedMessageKeepsWhatWasReadOfIt) {
  const std::string bytes =
      FromText("model_name: 'm' id: '7' raw_input_contents: 'abcd'").SerializeAsString();
  const DecodedRequest decoded = DecodeInferRequest(Sliced(bytes.substr(0, bytes.size() - 1), {}));
  EXPECT_EQ(decoded.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(decoded.status.message()), HasSubstr("malformed"));
  EXPECT_EQ(decoded.request.model_name, "m");
  EXPECT_EQ(decoded.request.id, "7");
}

TEST(DecodeInferRequest, TextThatIsNotUtf8IsNamedAndNotEchoed) {
  const DecodedRequest decoded = DecodeInferRequest(Sliced("\x1A\x02\xFF\xFE", {}));
  EXPECT_THAT(std::string(decoded.status.message()), HasSubstr("id is not valid UTF-8"));
  EXPECT_EQ(decoded.request.id, "");
}

TEST(DecodeInferRequest, TypedContentsBecomeTensors) {
  const DecodedRequest decoded = Decode(
      "inputs { name: 'a' datatype: 'FP32' shape: [ 1, 2 ] contents { fp32_contents: [ 1, -2.5 ] } "
      "}"
      "inputs { name: 'b' datatype: 'INT16' shape: 2 contents { int_contents: [ -3, 32767 ] } }"
      "inputs { name: 'c' datatype: 'BOOL' shape: 3 contents { bool_contents: [ true, false, true "
      "] "
      "} }"
      "inputs { name: 'd' datatype: 'UINT64' shape: 0 contents { } }",
      {5});
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_THAT(ElementsOf<float>(decoded.request.inputs[0].payload), ElementsAre(1, -2.5));
  EXPECT_THAT(ElementsOf<int16_t>(decoded.request.inputs[1].payload), ElementsAre(-3, 32767));
  EXPECT_THAT(ElementsOf<uint8_t>(decoded.request.inputs[2].payload), ElementsAre(1, 0, 1));
  EXPECT_EQ(decoded.request.inputs[3].payload.size(), 0);
}

TEST(DecodeInferRequest, TypedContentsMustFitTheDataTypeAndTheShape) {
  EXPECT_EQ(TypedError("datatype: 'FP32' shape: 2 contents { fp32_contents: 1 }"),
            "input 'x' for model '': 1 elements came in fp32_contents, expected 2 for its shape");
  EXPECT_EQ(
      TypedError("datatype: 'FP32' shape: 1 contents { fp64_contents: 1 }"),
      "input 'x' for model '': its elements came in fp64_contents, expected in fp32_contents");
  EXPECT_THAT(TypedError("datatype: 'INT8' shape: 2 contents { int_contents: [ 1, 128 ] }"),
              HasSubstr("element 1 of int_contents does not fit INT8"));
  EXPECT_THAT(TypedError("datatype: 'FP16' shape: 1 contents { fp32_contents: 1 }"),
              HasSubstr("FP16 has no typed contents; send the tensor in raw_input_contents"));
  EXPECT_THAT(TypedError("datatype: 'FLOAT' shape: 1 contents { fp32_contents: 1 }"),
              HasSubstr("data type 'FLOAT' is not known"));
  EXPECT_THAT(TypedError("datatype: 'FP32' shape: -1 contents { fp32_contents: 1 }"),
              HasSubstr("shape [-1] is negative"));
  EXPECT_THAT(TypedError("datatype: 'INT32' shape: [ 3037000500, 3037000500 ] contents { }"),
              HasSubstr("larger than can be addressed"));
}

TEST(DecodeInferRequest, RawAndTypedContentsExcludeEachOther) {
  EXPECT_THAT(ErrorOf("inputs { name: 'y' datatype: 'FP32' contents { fp32_contents: 1 } }"),
              HasSubstr("contents field must not be specified when using raw_input_contents"));
  EXPECT_THAT(std::string(Decode("inputs { name: 'x' datatype: 'FP32' contents { fp32_contents: 1 "
                                 "} } inputs { name: 'y' datatype: 'FP32' }")
                              .status.message()),
              HasSubstr("unable to find data for input 'y'"));
}

TEST(DecodeInferRequest, EveryInputHasOneRawEntry) {
  EXPECT_THAT(ErrorOf("raw_input_contents: 'efgh'"),
              HasSubstr("2 entries of raw_input_contents came for 1 inputs"));
  EXPECT_THAT(ErrorOf("inputs { name: 'y' datatype: 'FP32' shape: 1 }"),
              HasSubstr("1 entries of raw_input_contents came for 2 inputs"));
}

TEST(DecodeInferRequest, WhatIsNotOfferedIsRefusedByName) {
  EXPECT_THAT(ErrorOf("inputs { name: 'y' parameters { key: 'shared_memory_region' value { "
                      "string_param: 'r' } } }"),
              HasSubstr("shared memory (input parameter 'shared_memory_region')"));
  EXPECT_THAT(ErrorOf("outputs { name: 'p' parameters { key: 'shared_memory_byte_size' value { "
                      "int64_param: 4 } } }"),
              HasSubstr("shared memory (output parameter 'shared_memory_byte_size')"));
  EXPECT_THAT(ParameterError("sequence_id", "int64_param: 5"),
              HasSubstr("sequences (parameter 'sequence_id') are not supported yet"));
  EXPECT_THAT(ParameterError("sequence_id", "string_param: 'camera'"), HasSubstr("not supported"));
}

TEST(DecodeInferRequest, ClassesAreAPositiveNumber) {
  for (const char* value : {"int64_param: 0", "int64_param: -2", "uint64_param: 1", ""}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("outputs { name: 'p' parameters { key: 'classification' value "
                                     "{ ",
                                     value, " } } }")),
                HasSubstr("parameter 'classification' of output 'p'"))
        << value;
  }
}

TEST(DecodeInferRequest, ParametersForPicturesAndEchoesAreKept) {
  const DecodedRequest decoded = Decode(
      "parameters { key: 'millrace_image_format' value { string_param: 'NV12' } } "
      "parameters { key: 'millrace_image_width' value { int64_param: 64 } } "
      "parameters { key: 'millrace_echo_pts' value { double_param: 1.5 } } "
      "parameters { key: 'millrace_echo_key' value { bool_param: true } } "
      "parameters { key: 'other' value { string_param: 'x' } }");
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  using Value = decltype(Parameter::value);
  const auto by_name = [](const Parameters& parameters) {  // A map's entries have no order.
    std::map<std::string, Value> values;
    for (const auto& [name, value] : parameters) values[name] = value;
    return values;
  };
  EXPECT_THAT(by_name(decoded.request.parameters),
              ElementsAre(Pair("millrace_image_format", Value(std::string("NV12"))),
                          Pair("millrace_image_width", Value(int64_t{64}))));
  EXPECT_THAT(by_name(decoded.request.echoes), ElementsAre(Pair("millrace_echo_key", Value(true)),
                                                           Pair("millrace_echo_pts", Value(1.5))));
}

TEST(DecodeInferRequest, KeptParametersAreFewAndShort) {
  std::string many;
  for (int i = 0; i < 33; ++i) {
    absl::StrAppend(&many, "parameters { key: 'millrace_echo_", i,
                    "' value { bool_param: true } }");
  }
  EXPECT_THAT(ErrorOf(many), HasSubstr("too many millrace_ parameters; at most 32"));
  EXPECT_THAT(ParameterError("millrace_echo_x",
                             absl::StrCat("string_param: '", std::string(300, 'x'), "'")),
              HasSubstr("'millrace_echo_x' has 315 bytes with its name; at most 256"));
}

TEST(DecodeInferRequest, ReservedParametersAreRefused) {
  EXPECT_THAT(ParameterError("triton_other", "bool_param: true"),
              HasSubstr("parameter 'triton_other' is reserved"));
  EXPECT_THAT(ParameterError("headers", "bool_param: true"), HasSubstr("'headers' is reserved"));
  EXPECT_THAT(ParameterError("binary_data_output", "bool_param: true"), HasSubstr("reserved"));
}

TEST(DecodeInferRequest, ParametersHaveTheirTypes) {
  EXPECT_EQ(ParameterError("timeout", "string_param: '5'"),
            "invalid value type for 'timeout' parameter, expected int64_param");
  EXPECT_EQ(ParameterError("timeout", "int64_param: -5"),
            "invalid value -5 for 'timeout', expected value >= 0");
  EXPECT_EQ(ParameterError("priority", "bool_param: true"),
            "invalid value type for 'priority' parameter, expected int64_param or uint64_param");
  EXPECT_THAT(ParameterError("priority", "string_param: '1'"), HasSubstr("'priority'"));
  EXPECT_THAT(ParameterError("priority", "double_param: 1"), HasSubstr("'priority'"));
  EXPECT_THAT(ParameterError("priority", ""), HasSubstr("'priority'"));
  EXPECT_THAT(ParameterError("priority", "int64_param: -1"), HasSubstr("value -1 for 'priority'"));
  EXPECT_THAT(ParameterError("sequence_id", "bool_param: true"), HasSubstr("'sequence_id'"));
  EXPECT_THAT(ParameterError("sequence_end", "int64_param: 1"), HasSubstr("expected bool_param"));
  EXPECT_THAT(ParameterError("millrace_timings", "int64_param: 1"), HasSubstr("bool_param"));
}

TEST(DecodeInferRequest, APriorityIsAnyNumberThatIsNotNegative) {
  const auto priority = [](const char* value) {
    const DecodedRequest decoded =
        Decode(absl::StrCat("parameters { key: 'priority' value { ", value, " } }"));
    EXPECT_TRUE(decoded.status.ok()) << decoded.status;
    return decoded.request.priority;
  };
  EXPECT_EQ(Decode("").request.priority, 0);
  EXPECT_EQ(priority("int64_param: 0"), 0);
  EXPECT_EQ(priority("int64_param: 2"), 2);
  EXPECT_EQ(priority("uint64_param: 7"), 7);
  EXPECT_EQ(priority("uint64_param: 18446744073709551615"), std::numeric_limits<uint64_t>::max());
}

TEST(DecodeInferRequest, HarmlessParametersAreTaken) {
  EXPECT_EQ(ParameterError("sequence_id", "int64_param: 0"), "");
  EXPECT_EQ(ParameterError("sequence_id", "string_param: ''"), "");
  EXPECT_EQ(ParameterError("timeout", "int64_param: 0"), "");
  EXPECT_EQ(ParameterError("triton_enable_empty_final_response", "bool_param: true"), "");
  EXPECT_EQ(ParameterError("my_own", "double_param: 0.5"), "");
  EXPECT_EQ(ErrorOf("outputs { name: 'p' parameters { key: 'binary_data' value { bool_param: true "
                    "} } }"),
            "");
}

TEST(DecodeInferRequest, OfTwoParametersWithOneKeyTheLastCounts) {
  const std::string first =
      FromText("parameters { key: 'timeout' value { string_param: 'x' } }").SerializeAsString();
  const std::string second =
      FromText("parameters { key: 'timeout' value { int64_param: 7 } }").SerializeAsString();
  EXPECT_EQ(DecodeInferRequest(Sliced(first + second, {})).request.timeout, absl::Microseconds(7));
  EXPECT_FALSE(DecodeInferRequest(Sliced(second + first, {})).status.ok());
}

TEST(DecodeInferRequest, EverythingThatRepeatsHasALimit) {
  ModelInferRequest inputs;
  for (int i = 0; i < 257; ++i) inputs.add_inputs();
  ModelInferRequest outputs;
  for (int i = 0; i < 257; ++i) outputs.add_outputs();
  ModelInferRequest raw;
  for (int i = 0; i < 257; ++i) raw.add_raw_input_contents("");
  ModelInferRequest shape;
  for (int i = 0; i < 65; ++i)
    (i == 0 ? shape.add_inputs() : shape.mutable_inputs(0))->add_shape(1);
  ModelInferRequest name;
  name.set_model_name(std::string(4097, 'n'));
  for (const ModelInferRequest& request : {inputs, outputs, raw, shape, name}) {
    const DecodedRequest decoded = DecodeInferRequest(Sliced(request.SerializeAsString(), {}));
    EXPECT_EQ(decoded.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(decoded.status.message()), HasSubstr("at most"));
  }
}

TEST(DecodeInferRequest, UnknownGroupsNestAsDeepAsProtobufAllows) {
  for (const int depth : {100, 101}) {
    std::string bytes;
    for (int i = 0; i < depth; ++i) bytes += '\x7B';  // Field 15, start of a group.
    for (int i = 0; i < depth; ++i) bytes += '\x7C';
    const Verdict verdict = CompareWithProtobuf(bytes, {});
    EXPECT_EQ(verdict.disagreement, "");
    EXPECT_EQ(verdict.parsed, depth == 100);
  }
}

TEST(DecodeInferRequest, DamagedNumbersAreJudgedAsProtobufDoes) {
  const std::string ff(9, '\xFF');
  const std::vector<std::string> messages = {
      std::string("\x78") + ff + "\x01",      // The longest varint.
      std::string("\x78") + ff + "\x7F",      // Its surplus bits are dropped.
      std::string("\x78") + ff + "\xFF\x01",  // One byte too many.
      std::string("\x8A\x00\x01m", 4),        // A tag that takes more bytes than it needs.
      std::string("\x8A\x80\x80\x80\x80\x00\x01m", 8),  // Six bytes.
      std::string("\x8A\x80\x80\x80\x70\x01m", 7),      // Bits beyond 32.
      std::string("\x0A\x81\x00m", 4),  // A length that takes more bytes than it needs.
      std::string("\x0A\x81\x80\x80\x80\x08m", 6),
      std::string("\x0A\x81\x80\x80\x80\x80\x00m", 8),
      std::string("\x00\x00", 2),  // Field number 0.
      std::string("\x07\x00", 2),
      "\x0C",      // The end of a group that never began.
      "\x0B\x14",  // A group that ends as another.
      "\x0E",      // Wire types that don't exist.
      "\x0F",
  };
  const std::vector<size_t> single_bytes = {1};
  for (const std::string& message : messages) {
    EXPECT_EQ(CompareWithProtobuf(message, {}).disagreement, "")
        << ::testing::PrintToString(message);
    EXPECT_EQ(CompareWithProtobuf(message, single_bytes).disagreement, "");
  }
}

// A response with one UINT8 output for each size, filled with 'a', 'b', ….
Response WithOutputs(std::vector<size_t> sizes) {
  Response response;
  response.model_name = "resnet";
  response.model_version = "3";
  response.id = "r-1";
  for (const size_t size : sizes) response.memory_size += size;
  response.memory = std::make_unique<std::byte[]>(response.memory_size);
  std::byte* at = response.memory.get();
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::memset(at, static_cast<int>('a' + i), sizes[i]);
    response.outputs.push_back({"out" + std::to_string(i),
                                DataType::kUint8,
                                {1, static_cast<int64_t>(sizes[i])},
                                {at, sizes[i]}});
    at += sizes[i];
  }
  return response;
}

// What WithOutputs() is on the wire.
ModelInferResponse ExpectedMessage(const std::vector<size_t>& sizes) {
  ModelInferResponse message;
  message.set_model_name("resnet");
  message.set_model_version("3");
  message.set_id("r-1");
  for (size_t i = 0; i < sizes.size(); ++i) {
    auto* output = message.add_outputs();
    output->set_name("out" + std::to_string(i));
    output->set_datatype("UINT8");
    output->add_shape(1);
    output->add_shape(static_cast<int64_t>(sizes[i]));
    message.add_raw_output_contents(std::string(sizes[i], static_cast<char>('a' + i)));
  }
  return message;
}

template <typename Message>
Message Parsed(const grpc::ByteBuffer& buffer) {
  Message message;
  EXPECT_TRUE(message.ParseFromString(Joined(buffer)));
  return message;
}

const std::vector<std::vector<size_t>> kOutputSizes = {
    {}, {0}, {1}, {4096}, {4097}, {5, 0, 100000}, {100000, 3, 200000}, {0, 70000}};

TEST(EncodeInferResponse, ProtobufReadsWhatWasMeant) {
  for (const std::vector<size_t>& sizes : kOutputSizes) {
    const auto message = Parsed<ModelInferResponse>(EncodeInferResponse(WithOutputs(sizes)));
    EXPECT_THAT(message.SerializeAsString(), ExpectedMessage(sizes).SerializeAsString())
        << ::testing::PrintToString(sizes);
  }
}

TEST(EncodeInferResponse, LargeOutputsAreNotCopied) {
  Response response = WithOutputs({100000, 200000});
  const auto* const memory = reinterpret_cast<const uint8_t*>(response.memory.get());
  const grpc::ByteBuffer buffer = EncodeInferResponse(std::move(response));
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(buffer.Dump(&slices).ok());
  ASSERT_EQ(slices.size(), 4);
  EXPECT_EQ(slices[1].begin(), memory);
  EXPECT_EQ(slices[3].begin(), memory + 100000);
}

TEST(EncodeInferResponse, SmallOutputsAreOneSliceWithTheHead) {
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(EncodeInferResponse(WithOutputs({4000, 96})).Dump(&slices).ok());
  EXPECT_EQ(slices.size(), 1);
}

TEST(EncodeInferResponse, TimingsAreSentWhereTheyWereAskedFor) {
  Response response = WithOutputs({1});
  response.wants_timings = true;
  response.timings.queue = absl::Microseconds(150);
  response.timings.fill = absl::Microseconds(30);
  response.timings.execute = absl::Milliseconds(2);
  response.timings.batch_rows = 8;
  response.timings.replica = 1;
  const auto message = Parsed<ModelInferResponse>(EncodeInferResponse(std::move(response)));
  EXPECT_EQ(message.parameters().size(), 5);
  EXPECT_EQ(message.parameters().at("millrace_queue_us").int64_param(), 150);
  EXPECT_EQ(message.parameters().at("millrace_fill_us").int64_param(), 30);
  EXPECT_EQ(message.parameters().at("millrace_execute_us").int64_param(), 2000);
  EXPECT_EQ(message.parameters().at("millrace_batch_size").int64_param(), 8);
  EXPECT_EQ(message.parameters().at("millrace_replica").int64_param(), 1);
}

TEST(EncodeStreamResponse, EverySuccessIsMarkedFinal) {
  for (const std::vector<size_t>& sizes : kOutputSizes) {
    const auto message = Parsed<ModelStreamInferResponse>(EncodeStreamResponse(WithOutputs(sizes)));
    ModelStreamInferResponse expected;
    *expected.mutable_infer_response() = ExpectedMessage(sizes);
    (*expected.mutable_infer_response()->mutable_parameters())["triton_final_response"]
        .set_bool_param(true);
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(message, expected))
        << ::testing::PrintToString(sizes);
  }
}

TEST(EncodeDrainNotice, IsNoAnswerToAnything) {
  const auto message = Parsed<ModelStreamInferResponse>(EncodeDrainNotice());
  EXPECT_EQ(message.error_message(), "");
  EXPECT_EQ(message.infer_response().id(), "");
  EXPECT_EQ(message.infer_response().model_name(), "");
  ASSERT_EQ(message.infer_response().parameters_size(), 1);
  EXPECT_TRUE(message.infer_response().parameters().at("millrace_draining").bool_param());
}

TEST(EncodeStreamResponse, AnErrorTravelsInBand) {
  Response response = Response::Error(absl::NotFoundError("no such model"));
  response.id = "r-1";
  response.model_name = "resnet";
  response.model_version = "3";
  const auto message = Parsed<ModelStreamInferResponse>(EncodeStreamResponse(std::move(response)));
  EXPECT_EQ(message.error_message(), "no such model");
  const ModelInferResponse& inner = message.infer_response();
  EXPECT_EQ(inner.id(), "r-1");
  EXPECT_EQ(inner.model_name(), "resnet");
  EXPECT_EQ(inner.model_version(), "3");
  EXPECT_EQ(inner.parameters().size(), 2);
  EXPECT_TRUE(inner.parameters().at("triton_final_response").bool_param());
  EXPECT_EQ(inner.parameters().at("millrace_status_code").int64_param(), 5);
  EXPECT_EQ(inner.outputs_size(), 0);
}

TEST(EncodeStreamResponse, AnErrorSaysWhenToTryAgainWhereThatIsKnown) {
  Response response = Response::Error(absl::ResourceExhaustedError("full"));
  response.retry_after = absl::Milliseconds(20);
  const auto told = Parsed<ModelStreamInferResponse>(EncodeStreamResponse(std::move(response)));
  EXPECT_EQ(told.infer_response().parameters().at("millrace_retry_after_us").int64_param(), 20'000);
  const auto untold = Parsed<ModelStreamInferResponse>(
      EncodeStreamResponse(Response::Error(absl::ResourceExhaustedError("full"))));
  EXPECT_EQ(untold.infer_response().parameters().count("millrace_retry_after_us"), 0);
}

TEST(EncodeStreamResponse, AnErrorWithoutAMessageStillReadsAsOne) {
  const auto message = Parsed<ModelStreamInferResponse>(
      EncodeStreamResponse(Response::Error(absl::UnavailableError(""))));
  EXPECT_EQ(message.error_message(), "UNAVAILABLE");
}

}  // namespace
}  // namespace millrace
