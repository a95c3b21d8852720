// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/slice.h"
#include "server/base/status.h"
#include "server/inference/data_type.h"
#include "server/inference/shape.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/typed_contents.h"
#include "server/rpc/utf8.h"
#include "server/rpc/wire_reader.h"

namespace millrace {
namespace {

constexpr size_t kMaxTensors = 256;  // Of inputs, requested outputs and raw_input_contents each.
constexpr size_t kMaxDims = 64;
constexpr size_t kMaxTextBytes = 4096;

// Field number and wire type, as they stand before a value.
constexpr uint32_t VarintTag(uint32_t field) { return field << 3; }
constexpr uint32_t Fixed64Tag(uint32_t field) { return field << 3 | 1; }
constexpr uint32_t LengthTag(uint32_t field) { return field << 3 | 2; }

// What the payloads of a request point to: the message's slices, and tensors that were converted.
class ReceivedMessage {
 public:
  // Takes references to the slices of `message`; their places are final.
  explicit ReceivedMessage(const grpc::ByteBuffer& message) : message_(message) {
    if (message.TrySingleSlice(&single_).ok()) return;
    slices_.reserve(4 + message.Length() / 32768);
    readable_ = message.Dump(&slices_).ok();
  }

  bool readable() const { return readable_; }

  absl::Span<const grpc::Slice> slices() const {
    if (slices_.empty()) return {&single_, 1};
    return slices_;
  }

  // Keeps a converted tensor and returns its bytes.
  absl::Span<const std::byte> Keep(TensorBytes tensor) {
    converted_.push_back(std::move(tensor.bytes));
    return {converted_.back().get(), tensor.size};
  }

 private:
  // Goes last: the last reference to a slice may end what its connection's memory was taken from,
  // which gRPC is prepared for where a message ends, and not where a slice does.
  const grpc::ByteBuffer message_;
  bool readable_ = true;
  grpc::Slice single_;  // Used while `slices_` is empty.
  std::vector<grpc::Slice> slices_;
  std::vector<std::unique_ptr<std::byte[]>> converted_;
};

// What a request may say to input transforms, and what it may have echoed: so many parameters, each
// of so many bytes at most.
constexpr size_t kMostKept = 32;
constexpr size_t kMostKeptBytes = 256;

// The value of an inference.InferParameter; a string's is its length, and the text is in `text_`.
struct ParameterValue {
  enum Kind : uint8_t { kAbsent, kUnset, kBool, kInt64, kString, kDouble, kUint64 };
  Kind kind = kAbsent;
  uint64_t bits = 0;
};

// The request parameters that mean something here.
enum ParameterKey : size_t {
  kSequenceId,
  kSequenceStart,
  kSequenceEnd,
  kPriority,
  kTimeout,
  kEmptyFinalResponse,
  kMillraceTimings,
  kKeyCount,
};
constexpr std::array<absl::string_view, kKeyCount> kKeyNames = {
    "sequence_id",     "sequence_start", "sequence_end",
    "priority",        "timeout",        "triton_enable_empty_final_response",
    "millrace_timings"};

bool IsReserved(absl::string_view key) {
  return absl::StartsWith(key, "triton_") || key == "headers" || key == "binary_data_output";
}

// Reads one message into one request. Every Read… returns false when it must stop there: the bytes
// are malformed, or `status_` says why.
class RequestDecoder {
 public:
  RequestDecoder(ReceivedMessage* message, Request* request)
      : message_(*message), in_(message->slices()), request_(*request) {}

  absl::Status Decode() {
    if (!ReadRequest()) {
      if (!status_.ok()) return status_;
      return absl::InvalidArgumentError(
          "the message is malformed: it is no inference.ModelInferRequest");
    }
    if (!refusal_.ok()) return refusal_;
    MILLRACE_RETURN_IF_ERROR(ApplyParameters());
    return ResolveTensors();
  }

 private:
  // What an input brings besides its InputTensor.
  struct InputContents {
    explicit InputContents(const WireReader& tensor) : wire(tensor) {}

    WireReader wire;  // At the start of the InferInputTensor.
    bool typed = false;
    TypedCounts counts = {};
  };

  bool ReadRequest();
  bool ReadInput();
  bool ReadShape(uint32_t tag, Shape* shape);
  bool ReadRequestedOutput();
  bool ReadRawContents();
  bool ReadText(const char* what, std::string* text);

  // Reads a map entry; the key's text is then in `key_`.
  bool ReadParameter(ParameterValue* value);
  bool ReadParameterValue(ParameterValue* value);
  bool ReadUtf8(std::string* text);
  bool ReadRequestParameter();
  bool Keep(const ParameterValue& value, Parameters* parameters);
  // Of an input where `output` is null.
  bool ReadTensorParameter(RequestedOutput* output);

  bool CheckCount(size_t count, size_t most, const char* what);
  void Refuse(absl::Status why);

  absl::Status ApplyParameters();
  absl::Status CheckKind(ParameterKey key, std::initializer_list<ParameterValue::Kind> expected,
                         const char* text) const;
  absl::Status ResolveTensors();
  absl::Status ConvertContents(size_t index);

  ReceivedMessage& message_;
  WireReader in_;
  Request& request_;
  absl::InlinedVector<InputContents, 1> contents_;  // One for each input.
  absl::InlinedVector<Payload, 1> raw_;
  std::array<ParameterValue, kKeyCount> parameters_;
  std::string key_;
  std::string text_;
  absl::Status status_;   // Why reading stopped, where the bytes are well-formed.
  absl::Status refusal_;  // The first thing that came but isn't offered.
};

bool RequestDecoder::ReadRequest() {
  while (!in_.AtEnd()) {
    uint32_t tag = 0;
    if (!in_.ReadTag(&tag)) return false;
    bool read = false;
    switch (tag) {
      case LengthTag(1):
        read = ReadText("model_name", &request_.model_name);
        break;
      case LengthTag(2):
        read = ReadText("model_version", &request_.model_version);
        break;
      case LengthTag(3):
        read = ReadText("id", &request_.id);
        break;
      case LengthTag(4):
        read = ReadRequestParameter();
        break;
      case LengthTag(5):
        read = ReadInput();
        break;
      case LengthTag(6):
        read = ReadRequestedOutput();
        break;
      case LengthTag(7):
        read = ReadRawContents();
        break;
      default:
        read = in_.SkipField(tag);
    }
    if (!read) return false;
  }
  return true;
}

bool RequestDecoder::ReadInput() {
  size_t outer = 0;
  if (!CheckCount(request_.inputs.size() + 1, kMaxTensors, "inputs") || !in_.Enter(&outer)) {
    return false;
  }
  InputTensor& input = request_.inputs.emplace_back();
  InputContents& contents = contents_.emplace_back(in_);
  while (!in_.AtEnd()) {
    uint32_t tag = 0;
    if (!in_.ReadTag(&tag)) return false;
    bool read = false;
    size_t inner = 0;
    switch (tag) {
      case LengthTag(1):
        read = ReadText("an input's name", &input.name);
        break;
      case LengthTag(2):
        read = ReadText("an input's data type", &input.data_type);
        break;
      case VarintTag(3):
      case LengthTag(3):
        read = ReadShape(tag, &input.shape);
        break;
      case LengthTag(4):
        read = ReadTensorParameter(nullptr);
        break;
      case LengthTag(5):
        contents.typed = true;
        read = in_.Enter(&inner) && CountTypedContents(in_, &contents.counts) && in_.Leave(inner);
        break;
      default:
        read = in_.SkipField(tag);
    }
    if (!read) return false;
  }
  return in_.Leave(outer);
}

// Packed or one by one.
bool RequestDecoder::ReadShape(uint32_t tag, Shape* shape) {
  const auto read_dim = [&] {
    uint64_t dim = 0;
    if (!in_.ReadVarint(&dim)) return false;
    shape->push_back(static_cast<int64_t>(dim));
    return CheckCount(shape->size(), kMaxDims, "dimensions of an input's shape");
  };
  if (tag == VarintTag(3)) return read_dim();
  size_t outer = 0;
  if (!in_.Enter(&outer)) return false;
  while (!in_.AtEnd()) {
    if (!read_dim()) return false;
  }
  return in_.Leave(outer);
}

bool RequestDecoder::ReadRequestedOutput() {
  size_t outer = 0;
  if (!CheckCount(request_.requested_outputs.size() + 1, kMaxTensors, "requested outputs") ||
      !in_.Enter(&outer)) {
    return false;
  }
  RequestedOutput& output = request_.requested_outputs.emplace_back();
  while (!in_.AtEnd()) {
    uint32_t tag = 0;
    if (!in_.ReadTag(&tag)) return false;
    const bool read = tag == LengthTag(1)   ? ReadText("a requested output's name", &output.name)
                      : tag == LengthTag(2) ? ReadTensorParameter(&output)
                                            : in_.SkipField(tag);
    if (!read) return false;
  }
  return in_.Leave(outer);
}

bool RequestDecoder::ReadRawContents() {
  size_t length = 0;
  if (!CheckCount(raw_.size() + 1, kMaxTensors, "entries of raw_input_contents") ||
      !in_.ReadLength(&length)) {
    return false;
  }
  return in_.ReadPayload(length, &raw_.emplace_back());
}

// Leaves `text` empty where it can't be echoed.
bool RequestDecoder::ReadText(const char* what, std::string* text) {
  text->clear();
  size_t length = 0;
  if (!in_.ReadLength(&length)) return false;
  if (length > kMaxTextBytes) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(what, " has ", length, " bytes; at most ", kMaxTextBytes, " are taken"));
    return false;
  }
  if (!in_.ReadText(length, text)) return false;
  if (IsValidUtf8(*text)) return true;
  text->clear();
  status_ = absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8"));
  return false;
}

bool RequestDecoder::ReadUtf8(std::string* text) {
  size_t length = 0;
  if (!in_.ReadLength(&length) || !in_.ReadText(length, text)) return false;
  if (IsValidUtf8(*text)) return true;
  status_ = absl::InvalidArgumentError("a parameter is not valid UTF-8");
  return false;
}

bool RequestDecoder::ReadParameter(ParameterValue* value) {
  key_.clear();
  value->kind = ParameterValue::kUnset;
  size_t outer = 0;
  if (!in_.Enter(&outer)) return false;
  while (!in_.AtEnd()) {
    uint32_t tag = 0;
    if (!in_.ReadTag(&tag)) return false;
    const bool read = tag == LengthTag(1)   ? ReadUtf8(&key_)
                      : tag == LengthTag(2) ? ReadParameterValue(value)
                                            : in_.SkipField(tag);
    if (!read) return false;
  }
  return in_.Leave(outer);
}

bool RequestDecoder::ReadParameterValue(ParameterValue* value) {
  size_t outer = 0;
  if (!in_.Enter(&outer)) return false;
  while (!in_.AtEnd()) {
    uint32_t tag = 0;
    if (!in_.ReadTag(&tag)) return false;
    bool read = false;
    switch (tag) {
      case VarintTag(1):
        read = in_.ReadVarint(&value->bits);
        value->kind = ParameterValue::kBool;
        break;
      case VarintTag(2):
        read = in_.ReadVarint(&value->bits);
        value->kind = ParameterValue::kInt64;
        break;
      case LengthTag(3):
        read = ReadUtf8(&text_);
        value->bits = text_.size();
        value->kind = ParameterValue::kString;
        break;
      case Fixed64Tag(4):
        read = in_.ReadFixed64(&value->bits);
        value->kind = ParameterValue::kDouble;
        break;
      case VarintTag(5):
        read = in_.ReadVarint(&value->bits);
        value->kind = ParameterValue::kUint64;
        break;
      default:
        read = in_.SkipField(tag);
    }
    if (!read) return false;
  }
  return in_.Leave(outer);
}

// Of entries with the same key the last one counts.
bool RequestDecoder::ReadRequestParameter() {
  ParameterValue value;
  if (!ReadParameter(&value)) return false;
  for (size_t key = 0; key < kKeyCount; ++key) {
    if (key_ == kKeyNames[key]) {
      parameters_[key] = value;
      return true;
    }
  }
  if (key_ == "traceparent") {  // One that makes no sense is to be ignored.
    const bool text = value.kind == ParameterValue::kString && text_.size() <= kMostKeptBytes;
    request_.trace_parent = text ? text_ : "";
    return true;
  }
  if (absl::StartsWith(key_, "millrace_image_")) return Keep(value, &request_.parameters);
  if (absl::StartsWith(key_, "millrace_echo_")) return Keep(value, &request_.echoes);
  if (IsReserved(key_)) {
    Refuse(absl::InvalidArgumentError(absl::StrCat(
        "parameter '", key_.substr(0, 128),
        "' is reserved; of the keys that start with 'triton_' only "
        "'triton_enable_empty_final_response' is allowed, and 'headers' and 'binary_data_output' "
        "are not")));
  }
  return true;
}

bool RequestDecoder::Keep(const ParameterValue& value, Parameters* parameters) {
  auto same = std::find_if(parameters->begin(), parameters->end(),
                           [&](const Parameter& each) { return each.name == key_; });
  if (same == parameters->end()) {
    if (!CheckCount(parameters->size() + 1, kMostKept, "millrace_ parameters")) return false;
    same = parameters->insert(same, {.name = key_, .value = false});
  }
  switch (value.kind) {
    case ParameterValue::kInt64:
    case ParameterValue::kUint64:
      same->value = static_cast<int64_t>(value.bits);
      break;
    case ParameterValue::kDouble:
      same->value = std::bit_cast<double>(value.bits);
      break;
    case ParameterValue::kString:
      same->value = text_;
      break;
    default:
      same->value = value.bits != 0;
  }
  return true;
}

bool RequestDecoder::ReadTensorParameter(RequestedOutput* output) {
  ParameterValue value;
  if (!ReadParameter(&value)) return false;
  const char* const where = output == nullptr ? "input" : "output";
  if (absl::StartsWith(key_, "shared_memory_")) {
    Refuse(absl::InvalidArgumentError(
        absl::StrCat("shared memory (", where, " parameter '", key_.substr(0, 128),
                     "') is not supported yet; send and receive tensors in the messages")));
  } else if (output != nullptr && key_ == "classification") {
    const auto classes = static_cast<int64_t>(value.bits);
    output->classes = value.kind == ParameterValue::kInt64 && classes > 0 ? classes : -1;
  }
  return true;
}

bool RequestDecoder::CheckCount(size_t count, size_t most, const char* what) {
  if (count <= most) return true;
  status_ = absl::InvalidArgumentError(
      absl::StrCat("the request has too many ", what, "; at most ", most, " are taken"));
  return false;
}

void RequestDecoder::Refuse(absl::Status why) {
  if (refusal_.ok()) refusal_ = std::move(why);
}

// An absent parameter has the right kind.
absl::Status RequestDecoder::CheckKind(ParameterKey key,
                                       std::initializer_list<ParameterValue::Kind> expected,
                                       const char* text) const {
  const ParameterValue::Kind kind = parameters_[key].kind;
  if (kind == ParameterValue::kAbsent) return absl::OkStatus();
  for (const ParameterValue::Kind one : expected) {
    if (kind == one) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("invalid value type for '", kKeyNames[key], "' parameter, expected ", text));
}

absl::Status RequestDecoder::ApplyParameters() {
  using Value = ParameterValue;
  MILLRACE_RETURN_IF_ERROR(
      CheckKind(kSequenceId, {Value::kInt64, Value::kString}, "int64_param or string_param"));
  for (const ParameterKey key :
       {kSequenceStart, kSequenceEnd, kEmptyFinalResponse, kMillraceTimings}) {
    MILLRACE_RETURN_IF_ERROR(CheckKind(key, {Value::kBool}, "bool_param"));
  }
  MILLRACE_RETURN_IF_ERROR(
      CheckKind(kPriority, {Value::kInt64, Value::kUint64}, "int64_param or uint64_param"));
  MILLRACE_RETURN_IF_ERROR(CheckKind(kTimeout, {Value::kInt64}, "int64_param"));
  if (parameters_[kSequenceId].bits != 0) {
    return absl::InvalidArgumentError(
        "sequences (parameter 'sequence_id') are not supported yet; leave it out, or send 0 or an "
        "empty string");
  }
  for (const ParameterKey key : {kPriority, kTimeout}) {
    const auto value = static_cast<int64_t>(parameters_[key].bits);
    if (parameters_[key].kind == Value::kInt64 && value < 0) {
      return absl::InvalidArgumentError(absl::StrCat("invalid value ", value, " for '",
                                                     kKeyNames[key], "', expected value >= 0"));
    }
  }
  if (parameters_[kTimeout].bits != 0) {
    request_.timeout = absl::Microseconds(static_cast<int64_t>(parameters_[kTimeout].bits));
  }
  for (const RequestedOutput& output : request_.requested_outputs) {
    if (output.classes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid value for the parameter 'classification' of output '", output.name,
                       "', expected an int64_param of 1 or more"));
    }
  }
  for (const Parameters* const kept : {&request_.parameters, &request_.echoes}) {
    for (const auto& [name, value] : *kept) {
      const auto* const text = std::get_if<std::string>(&value);
      const size_t bytes = name.size() + (text == nullptr ? 0 : text->size());
      if (bytes <= kMostKeptBytes) continue;
      return absl::InvalidArgumentError(absl::StrCat("parameter '", name.substr(0, 128), "' has ",
                                                     bytes, " bytes with its name; at most ",
                                                     kMostKeptBytes, " are taken"));
    }
  }
  request_.priority = parameters_[kPriority].bits;
  request_.wants_timings = parameters_[kMillraceTimings].bits != 0;
  return absl::OkStatus();
}

// Gives each input its bytes.
absl::Status RequestDecoder::ResolveTensors() {
  bool typed = false;
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const InputTensor& input = request_.inputs[i];
    if (!contents_[i].typed) continue;
    typed = true;
    if (!raw_.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("contents field must not be specified when using raw_input_contents for '",
                       input.name, "' for model '", request_.model_name, "'"));
    }
  }
  if (!typed && raw_.size() != request_.inputs.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        raw_.size(), " entries of raw_input_contents came for ", request_.inputs.size(),
        " inputs for model '", request_.model_name, "', expected one for each"));
  }
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    if (typed) {
      MILLRACE_RETURN_IF_ERROR(ConvertContents(i));
    } else {
      request_.inputs[i].payload = std::move(raw_[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status RequestDecoder::ConvertContents(size_t index) {
  InputTensor& input = request_.inputs[index];
  const std::string where =
      absl::StrCat("input '", input.name, "' for model '", request_.model_name, "'");
  if (!contents_[index].typed) {
    return absl::InvalidArgumentError(
        absl::StrCat("unable to find data for ", where, "; other inputs have typed contents"));
  }
  const std::optional<DataType> type = DataTypeFromWireName(input.data_type);
  if (!type) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": data type '", input.data_type.substr(0, 128), "' is not known"));
  }
  const std::optional<int64_t> elements = ElementCount(input.shape);
  if (!elements) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": shape ", ToString(input.shape),
                                                   " is negative or larger than can be addressed"));
  }
  absl::StatusOr<TensorBytes> tensor = ConvertTypedContents(
      contents_[index].wire, contents_[index].counts, *type, static_cast<size_t>(*elements));
  if (!tensor.ok()) return Annotate(tensor.status(), where);
  input.payload = Payload(message_.Keep(*std::move(tensor)));
  return absl::OkStatus();
}

}  // namespace

DecodedRequest DecodeInferRequest(const grpc::ByteBuffer& message) {
  DecodedRequest decoded;
  const auto received = std::make_shared<ReceivedMessage>(message);
  if (!received->readable()) {
    decoded.status = absl::InvalidArgumentError("the message could not be read");
    return decoded;
  }
  decoded.status = RequestDecoder(received.get(), &decoded.request).Decode();
  if (decoded.status.ok()) {
    decoded.request.payload_owner = received;
  } else {
    decoded.request.inputs.clear();  // Their payloads go with `received`.
  }
  return decoded;
}

}  // namespace millrace
