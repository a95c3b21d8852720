// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/tensor_file.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A .npy file as NumPy writes it.
std::string Npy(const std::string& dictionary, const std::string& elements) {
  const std::string header =
      dictionary + std::string(63 - (10 + dictionary.size()) % 64, ' ') + "\n";
  return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' + header +
         elements;
}

TEST(TensorFile, ReadsWhatNumpyWrites) {
  const auto tensor = ParseNpy(Npy("{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }",
                                   std::string("\1\0\2\0\3\0", 6)));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->datatype, "INT16");
  EXPECT_THAT(tensor->shape, ElementsAre(1, 3));
  EXPECT_THAT(*tensor->Values<int16_t>(), ElementsAre(1, 2, 3));
}

TEST(TensorFile, WhatIsWrittenReadsBackTheSame) {
  for (const Tensor& tensor :
       {Tensor::Of<float>("x", {2, 2}, {1, 2, 3, 4}), Tensor::Of<uint8_t>("x", {3}, {1, 2, 3}),
        Tensor::Of<double>("x", {}, {0.5}), Tensor::Of<int64_t>("x", {0, 4}, {}),
        Tensor{"x", "BOOL", {2}, std::string("\1\0", 2)}, Tensor{"x", "FP16", {1}, "ab"}}) {
    const auto bytes = FormatNpy(tensor);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const auto again = ParseNpy(*bytes);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->datatype, tensor.datatype);
    EXPECT_EQ(again->shape, tensor.shape);
    EXPECT_EQ(again->data, tensor.data);
  }
}

TEST(TensorFile, HeaderIsAligned) {
  const auto bytes = FormatNpy(Tensor::Of<float>("x", {1, 2, 3, 4, 5, 6, 7}, {}));
  EXPECT_EQ(bytes->size() % 64, 0u);
  EXPECT_EQ(bytes->back(), '\n');
}

TEST(TensorFile, RefusesWhatNoTensorCarries) {
  const auto error = [](const std::string& bytes) {
    return std::string(ParseNpy(bytes).status().message());
  };
  EXPECT_THAT(error("hello"), HasSubstr("not a .npy file"));
  EXPECT_THAT(error(std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12)),
              HasSubstr("not a .npy file"));
  EXPECT_THAT(error(Npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "")),
              HasSubstr("elements of type '|O'"));
  EXPECT_THAT(error(Npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", "abcd")),
              HasSubstr("Fortran order"));
  EXPECT_THAT(error(Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "abcd")),
              HasSubstr("4 bytes of elements; its header promises 8"));
  EXPECT_THAT(error(Npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "")),
              HasSubstr("can't use a .npy file with the header"));
}

}  // namespace
}  // namespace millrace
