// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// What a picture costs on its way into a row: a JPEG decoded and resized, beside what libjpeg-turbo
// alone takes to decode the whole of it. Run by `./dev bench transform`;
// transform.py compares it with Pillow.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/check.h"
#include "server/transform/jpeg_reader.h"
#include "server/transform/picture_decoder.h"
#include "server/transform/row_kernels.h"
#include "server/transform/row_writer.h"
#include "tests/fakes/picture_files.h"

namespace millrace {
namespace {

// To a square row with sides of so many pixels.
ImageTransform Letterbox(int side) {
  ImageTransform transform;
  transform.width = transform.height = side;
  transform.fit = Fit::kLetterbox;
  transform.scale = 1.0F / 255;
  transform.accepted.push_back(PictureFormat::kNv12);
  return transform;
}

Payload PayloadOf(const std::vector<uint8_t>& file) {
  return Payload({reinterpret_cast<const std::byte*>(file.data()), file.size()});
}

void LibjpegAlone(benchmark::State& state) {
  const auto file = NaturalJpeg(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (auto _ : state) benchmark::DoNotOptimize(DecodeJpegPlainly(file));
  state.counters["bytes"] = static_cast<double>(file.size());
}

void Inspect(benchmark::State& state) {
  const auto file = NaturalJpeg(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  const ImageTransform transform = Letterbox(640);
  for (auto _ : state) {
    benchmark::DoNotOptimize(InspectPicture(PayloadOf(file), {}, transform));
  }
}

// `steps`: 'd' to decode, 'w' to write the row, or both.
void Transform(benchmark::State& state, const char* steps, bool scaled, DataType type,
               const RowKernels& kernels) {
  const auto file = NaturalJpeg(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  ImageTransform transform = Letterbox(static_cast<int>(state.range(2)));
  transform.scaled_decoding = scaled;
  transform.data_type = type;
  if (type == DataType::kUint8) transform.scale = 1;
  MILLRACE_CHECK(CheckImageTransform(transform).ok(), "The benchmark's settings are valid.");
  std::vector<std::byte> row(RowBytes(transform));
  PictureDecoder decoder;
  Picture picture = *decoder.Decode(PayloadOf(file), {}, transform);
  for (auto _ : state) {
    for (const char* step = steps; *step != '\0'; ++step) {
      if (*step == 'd') {
        picture = *decoder.Decode(PayloadOf(file), {}, transform);
      } else {
        WriteRow(picture, transform, absl::MakeSpan(row), kernels);
      }
    }
    benchmark::DoNotOptimize(row.data());
  }
}

// A JPEG of 1920x1080 decoded at so many eighths, and written into a square row with sides of so
// many pixels (0: not written): which scales are worth decoding at, see EighthsToDecode().
void DecodeAtEighths(benchmark::State& state) {
  const auto file = NaturalJpeg(1920, 1080);
  const auto eighths = static_cast<int>(state.range(0));
  const auto side = static_cast<int>(state.range(1));
  const ImageTransform transform = Letterbox(std::max(side, 1));
  std::vector<std::byte> row(RowBytes(transform));
  JpegReader reader;
  for (auto _ : state) {
    MILLRACE_CHECK(reader.ReadHeader(PayloadOf(file)).ok(), "It is a JPEG.");
    Picture picture = *reader.Decode(eighths);
    if (side > 0) WriteRow(picture, transform, absl::MakeSpan(row));
    benchmark::DoNotOptimize(picture.row(0));
    benchmark::DoNotOptimize(row.data());
  }
}

void Nv12(benchmark::State& state) {
  const auto width = static_cast<int>(state.range(0));
  const auto height = static_cast<int>(state.range(1));
  const std::vector<uint8_t> raw(static_cast<size_t>(width) * static_cast<size_t>(height) / 2 * 3,
                                 100);
  const ImageTransform transform = Letterbox(static_cast<int>(state.range(2)));
  std::vector<std::byte> row(RowBytes(transform));
  PictureDecoder decoder;
  for (auto _ : state) {
    const Picture picture =
        *decoder.Decode(PayloadOf(raw), {PictureFormat::kNv12, width, height}, transform);
    WriteRow(picture, transform, absl::MakeSpan(row));
    benchmark::DoNotOptimize(row.data());
  }
}

void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Unit(benchmark::kMicrosecond)->Args({640, 480})->Args({1280, 720})->Args({1920, 1080});
}

void SizesAndRows(benchmark::internal::Benchmark* benchmark) {
  benchmark->Unit(benchmark::kMicrosecond);
  for (const int64_t side : {224, 640}) {
    for (const auto& [width, height] : {std::pair{640, 480}, {1280, 720}, {1920, 1080}}) {
      benchmark->Args({width, height, side});
    }
  }
}

BENCHMARK(LibjpegAlone)->Apply(Sizes);
BENCHMARK(Inspect)->Apply(Sizes);
BENCHMARK_CAPTURE(Transform, jpeg_to_row, "dw", true, DataType::kFp32, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, whole_jpeg_to_row, "dw", false, DataType::kFp32, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, decode, "d", true, DataType::kFp32, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, write_row, "w", false, DataType::kFp32, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, write_row_portably, "w", false, DataType::kFp32, PortableRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, write_row_fp16, "w", false, DataType::kFp16, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK_CAPTURE(Transform, write_row_uint8, "w", false, DataType::kUint8, NativeRowKernels())
    ->Apply(SizesAndRows);
BENCHMARK(DecodeAtEighths)
    ->Unit(benchmark::kMicrosecond)
    ->ArgsProduct({{8, 7, 6, 5, 4, 3, 2, 1}, {0, 224, 640}});
BENCHMARK(Nv12)->Apply(SizesAndRows);

}  // namespace
}  // namespace millrace

// `--write WIDTH HEIGHT` writes the JPEG that is measured with, for transform.py.
int main(int argc, char** argv) {
  if (argc == 4 && absl::string_view(argv[1]) == "--write") {
    const auto file = millrace::NaturalJpeg(std::atoi(argv[2]), std::atoi(argv[3]));
    return std::fwrite(file.data(), 1, file.size(), stdout) == file.size() ? 0 : 1;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
