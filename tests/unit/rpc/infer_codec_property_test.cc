// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "gtest/gtest.h"
#include "proto/grpc_service.pb.h"
#include "server/rpc/wire_writer.h"
#include "tests/unit/rpc/infer_codec_oracle.h"

namespace millrace {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using inference::ModelInferRequest;

// Appends to a string what wire_writer.h writes.
struct StringOut {
  void Byte(uint8_t byte) { text.push_back(static_cast<char>(byte)); }
  void Bytes(const void* bytes, size_t count) {
    text.append(static_cast<const char*>(bytes), count);
  }
  std::string text;
};

// Makes requests, valid ones and broken ones.
class RequestGenerator {
 public:
  explicit RequestGenerator(uint64_t seed) : random_(seed) {}

  size_t Below(size_t bound) {
    return std::uniform_int_distribution<size_t>(0, bound - 1)(random_);
  }
  bool OneIn(size_t n) { return Below(n) == 0; }

  // The bytes of a message that libprotobuf takes, its fields in any order, some of them twice,
  // with unknown ones between them.
  std::string ValidMessage() {
    std::string bytes = Shuffled(Message().SerializeAsString(), kRequest);
    return bytes;
  }

  std::string Mutated(std::string bytes) {
    for (size_t n = 1 + Below(3); n > 0 && !bytes.empty(); --n) {
      const size_t at = Below(bytes.size());
      switch (Below(5)) {
        case 0:
          bytes[at] = static_cast<char>(Below(256));
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.erase(at, 1 + Below(4));
          break;
        default:
          bytes.insert(at, std::string(1 + Below(11), OneIn(2) ? '\xFF' : '\x80'));
      }
    }
    return bytes;
  }

  std::vector<size_t> SliceSizes() {
    std::vector<size_t> sizes(Below(4));
    for (size_t& size : sizes) size = OneIn(3) ? 1 + Below(3) : 1 + Below(60);
    return sizes;
  }

 private:
  enum Kind { kRequest, kInput, kOutput, kOther };

  std::string Text() {
    static const std::vector<std::string> texts = {
        "", "a", "input", "INPUT__0", "größe", "日本", "\U0001F600", "a name longer than fifteen"};
    return texts[Below(texts.size())];
  }

  void SetParameter(inference::InferParameter* parameter) {
    switch (Below(6)) {
      case 0:
        return parameter->set_bool_param(OneIn(2));
      case 1:
        return parameter->set_int64_param(OneIn(3) ? 0 : static_cast<int64_t>(random_()));
      case 2:
        return parameter->set_string_param(Text());
      case 3:
        return parameter->set_double_param(0.5);
      case 4:
        return parameter->set_uint64_param(Below(1000));
      default:
        return;
    }
  }

  // Mostly parameters that are fine, so that something is served.
  void AddParameters(ModelInferRequest* request) {
    auto& parameters = *request->mutable_parameters();
    if (OneIn(2)) parameters["timeout"].set_int64_param(static_cast<int64_t>(Below(1 << 20)));
    if (OneIn(3)) parameters["millrace_timings"].set_bool_param(OneIn(2));
    if (OneIn(3)) parameters["triton_enable_empty_final_response"].set_bool_param(OneIn(2));
    if (OneIn(4)) parameters["priority"].set_uint64_param(Below(9));
    if (OneIn(4)) parameters["priority"].set_int64_param(static_cast<int64_t>(Below(9)));
    if (OneIn(4)) parameters["sequence_id"].set_int64_param(0);
    if (OneIn(3)) SetParameter(&parameters[Text()]);
    if (!OneIn(6)) return;
    static const char* const keys[] = {"timeout",         "priority",     "sequence_id",
                                       "sequence_start",  "sequence_end", "millrace_timings",
                                       "triton_anything", "headers",      "binary_data_output"};
    SetParameter(&parameters[keys[Below(std::size(keys))]]);
  }

  void AddContents(ModelInferRequest::InferInputTensor* input, size_t count) {
    auto* contents = input->mutable_contents();
    const std::string& type = input->datatype();
    const bool narrow = !OneIn(10);
    for (; count > 0; --count) {
      if (type == "BOOL") contents->add_bool_contents(OneIn(2));
      if (type == "INT8" || type == "INT16" || type == "INT32") {
        contents->add_int_contents(narrow ? static_cast<int32_t>(Below(256)) - 128
                                          : static_cast<int32_t>(random_()));
      }
      if (type == "INT64") contents->add_int64_contents(static_cast<int64_t>(random_()));
      if (type == "UINT8" || type == "UINT16" || type == "UINT32") {
        contents->add_uint_contents(narrow ? static_cast<uint32_t>(Below(256))
                                           : static_cast<uint32_t>(random_()));
      }
      if (type == "UINT64") contents->add_uint64_contents(random_());
      if (type == "FP32") contents->add_fp32_contents(static_cast<float>(Below(1000)) / 8);
      if (type == "BYTES") contents->add_bytes_contents(Text());
      if (type == "FP64") contents->add_fp64_contents(static_cast<double>(random_()));
    }
    if (OneIn(20)) contents->add_bytes_contents("bytes");
  }

  ModelInferRequest Message() {
    static const char* const types[] = {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64",
                                        "INT8", "INT16", "INT32",  "INT64",  "FP32",
                                        "FP64", "FP16",  "BF16",   "BYTES",  "FLOAT"};
    ModelInferRequest request;
    request.set_model_name(Text());
    request.set_model_version(Text());
    request.set_id(Text());
    AddParameters(&request);
    const bool typed = OneIn(3);
    for (size_t i = Below(4); i > 0; --i) {
      auto* input = request.add_inputs();
      input->set_name(Text());
      input->set_datatype(types[Below(OneIn(8) ? std::size(types) : 11)]);
      size_t count = 1;
      for (size_t dims = Below(4); dims > 0; --dims) {
        const size_t dim = Below(5);
        input->add_shape(OneIn(40) ? -1 : static_cast<int64_t>(dim));
        count *= dim;
      }
      if (OneIn(4)) SetParameter(&(*input->mutable_parameters())[Text()]);
      if (OneIn(50)) (*input->mutable_parameters())["shared_memory_region"].set_string_param("r");
      if (typed != OneIn(30)) {
        AddContents(input, OneIn(20) ? Below(9) : count);
      } else {
        request.add_raw_input_contents(std::string(Below(200), static_cast<char>(Below(256))));
      }
    }
    if (OneIn(30)) request.add_raw_input_contents("one more");
    for (size_t i = Below(3); i > 0; --i) {
      auto* output = request.add_outputs();
      output->set_name(Text());
      if (OneIn(4)) SetParameter(&(*output->mutable_parameters())["binary_data"]);
      if (OneIn(40))
        (*output->mutable_parameters())["classification"].set_int64_param(
            static_cast<int64_t>(Below(4)));
    }
    return request;
  }

  std::string UnknownField() {
    StringOut out;
    const uint32_t number = 9 + static_cast<uint32_t>(OneIn(4) ? random_() & 0xFFFF : Below(7));
    const auto tag = [&](uint32_t wire_type) { WriteVarint(out, number << 3 | wire_type); };
    switch (Below(5)) {
      case 0:
        tag(0);
        WriteVarint(out, random_());
        break;
      case 1:
        tag(1);
        out.Bytes("12345678", 8);
        break;
      case 2:
        WriteText(out, number, "unknown");
        break;
      case 3:
        tag(3);
        if (OneIn(2)) out.text += UnknownField();
        tag(4);
        break;
      default:
        tag(5);
        out.Bytes("1234", 4);
    }
    return out.text;
  }

  static std::vector<std::string> Fields(const std::string& message) {
    CodedInputStream in(reinterpret_cast<const uint8_t*>(message.data()),
                        static_cast<int>(message.size()));
    std::vector<std::string> fields;
    int start = 0;
    while (const uint32_t tag = in.ReadTag()) {
      EXPECT_TRUE(WireFormatLite::SkipField(&in, tag));
      fields.push_back(message.substr(start, in.CurrentPosition() - start));
      start = in.CurrentPosition();
    }
    return fields;
  }

  // What is in a length-delimited field, the tag being one byte.
  static std::string Body(const std::string& field) {
    CodedInputStream in(reinterpret_cast<const uint8_t*>(field.data()),
                        static_cast<int>(field.size()));
    uint32_t length = 0;
    in.ReadTag();
    EXPECT_TRUE(in.ReadVarint32(&length));
    return field.substr(field.size() - length);
  }

  std::string Shuffled(const std::string& message, Kind kind) {
    if (OneIn(4)) return message;
    std::vector<std::string> fields = Fields(message);
    for (std::string& field : fields) {
      const uint32_t number = static_cast<uint8_t>(field[0]) >> 3;
      StringOut out;
      if (kind == kRequest && number >= 4 && number <= 6) {
        const Kind inner = number == 5 ? kInput : number == 6 ? kOutput : kOther;
        WriteText(out, number, Shuffled(Body(field), inner));
      } else if (kind == kInput && number == 3 && OneIn(2)) {  // Unpacks the shape.
        const std::string dims = Body(field);
        CodedInputStream in(reinterpret_cast<const uint8_t*>(dims.data()),
                            static_cast<int>(dims.size()));
        for (uint64_t dim = 0; in.ReadVarint64(&dim);) {
          WriteVarint(out, 3 << 3);
          WriteVarint(out, dim);
        }
      } else if (kind == kInput && number == 5 && OneIn(2)) {  // Splits the contents.
        const std::vector<std::string> parts = Fields(Body(field));
        for (const std::string& part : parts) WriteText(out, 5, Shuffled(part, kOther));
        if (parts.empty()) out.text = field;
      } else {
        continue;
      }
      if (!out.text.empty()) field = out.text;
    }
    if (OneIn(8) && !fields.empty()) fields.push_back(fields[Below(fields.size())]);
    for (size_t n = OneIn(3) ? Below(4) : 0; n > 0; --n) fields.push_back(UnknownField());
    if (OneIn(2)) std::shuffle(fields.begin(), fields.end(), random_);
    std::string result;
    for (const std::string& field : fields) result += field;
    return result;
  }

  std::mt19937_64 random_;
};

uint64_t Seed() {
  const char* const given = std::getenv("MILLRACE_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
}

TEST(InferCodec, DecodesWhatProtobufDecodes) {
  constexpr int kRounds = 60000;
  const uint64_t seed = Seed();
  SCOPED_TRACE(absl::StrCat("MILLRACE_TEST_SEED=", seed));
  printf("MILLRACE_TEST_SEED=%lu\n", seed);
  RequestGenerator generator(seed);
  int served = 0;
  int refused = 0;
  int malformed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const bool mutate = generator.OneIn(2);
    std::string bytes = generator.ValidMessage();
    if (mutate) bytes = generator.Mutated(std::move(bytes));
    const Verdict verdict = CompareWithProtobuf(bytes, generator.SliceSizes());
    ASSERT_EQ(verdict.disagreement, "")
        << "round " << round << ": " << absl::BytesToHexString(bytes);
    ASSERT_TRUE(mutate || verdict.parsed) << "the generator's own message is malformed";
    ++(verdict.accepted ? served : verdict.parsed ? refused : malformed);
  }
  // The generator makes all three in plenty, or this test would say little.
  EXPECT_GT(served, kRounds / 10);
  EXPECT_GT(refused, kRounds / 10);
  EXPECT_GT(malformed, kRounds / 10);
}

}  // namespace
}  // namespace millrace
