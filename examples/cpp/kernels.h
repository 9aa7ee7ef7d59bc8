// A frame's kernels: what kernels/cuda/gcpp_cuda.h asks for, filled from an engine's tensors and the settings.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "engine.h"
#include "gcpp_cuda.h"
#include "gpu.h"
#include "settings.h"

template <typename T>
T* as(CUdeviceptr address) {
    return reinterpret_cast<T*>(address);
}

inline unsigned blocks(int64_t size, int64_t of) { return static_cast<unsigned>((size + of - 1) / of); }

inline const char* type_of(const Tensor& tensor) {
    if (!tensor.is_half() && tensor.type != nvinfer1::DataType::kFLOAT)
        throw std::runtime_error("the kernels take float32 and float16 tensors");
    return tensor.is_half() ? "f16" : "f32";
}

inline gcpp_axis axis_of(const Settings& settings, const std::string& key) {
    return {settings.number(key, 0), settings.number(key, 1), static_cast<int32_t>(settings.integer(key, 2)),
            static_cast<int32_t>(settings.integer(key, 3))};
}

inline int32_t format_of(const std::string& name) {
    static const char* const names[] = {"bgr", "rgb", "bgra", "rgba", "gray"};  // in the order of gcpp_format
    for (int32_t index = 0; index < 5; ++index)
        if (name == names[index]) return index;
    throw std::runtime_error("unknown order of colours: " + name);
}

inline int32_t rule_of(const std::string& name) {
    static const char* const names[] = {"gradcam", "gradcam++", "gradcam++-signed"};  // in the order of gcpp_rule
    for (int32_t index = 0; index < 3; ++index)
        if (name == names[index]) return index;
    throw std::runtime_error("unknown rule: " + name);
}

// A BGR frame, rows packed, to the network's input.
inline void preprocess(const Kernels& kernels, const Stream& stream, const Settings& settings, CUdeviceptr frame,
                       const Tensor& input) {
    gcpp_cuda_preprocess arguments{};
    arguments.frame = as<uint8_t>(frame);
    arguments.height = static_cast<int32_t>(settings.integer("frame", 0));
    arguments.width = static_cast<int32_t>(settings.integer("frame", 1));
    arguments.row_stride_bytes = int64_t{3} * arguments.width;
    arguments.out = as<void>(input.address());
    arguments.rows = axis_of(settings, "preprocess_rows");
    arguments.columns = axis_of(settings, "preprocess_columns");
    arguments.out_height = static_cast<int32_t>(settings.integer("input", 2));
    arguments.out_width = static_cast<int32_t>(settings.integer("input", 3));
    arguments.format = GCPP_BGR;
    arguments.color = format_of(settings.word("color"));
    settings.fill("scale", arguments.scale);
    settings.fill("bias", arguments.bias);
    settings.fill("fill", arguments.fill);
    const Size grid{blocks(arguments.out_width, GCPP_CUDA_COLUMNS), blocks(arguments.out_height, GCPP_CUDA_ROWS)};
    kernels.launch(std::string("gcpp_preprocess_") + type_of(input) + "_cuda", grid, {32, 8}, arguments, stream);
}

// The memory of a map, and the range that its picture shows.
struct Map {
    explicit Map(const Settings& settings)
        : channels(settings.integer("activations", 1)), height(settings.integer("activations", 2)),
          width(settings.integer("activations", 3)), values(static_cast<size_t>(height * width) * sizeof(float)),
          weights(static_cast<size_t>(channels) * sizeof(float)), range(2 * sizeof(float)) {}
    const int64_t channels, height, width;
    const DeviceMemory values, weights, range;
};

// Activations and gradients to a map, and its range: Grad-CAM++ or what the file's method is.
inline void cam(const Kernels& kernels, const Stream& stream, const Settings& settings, const Engine& engine,
                const Map& map) {
    const Tensor& activations = engine[settings.word("activations")];
    const Tensor& gradients = engine[settings.word("gradients")];
    gcpp_cuda_cam arguments{};
    arguments.activations = as<void>(activations.address());
    arguments.gradients = as<void>(gradients.address());
    arguments.out = as<float>(map.values.address);
    arguments.weights = as<float>(map.weights.address);
    arguments.maps = arguments.targets = 1;
    arguments.channels = map.channels;
    arguments.positions = map.height * map.width;
    arguments.rule = rule_of(settings.word("method", 0));
    arguments.relu = static_cast<int32_t>(settings.integer("method", 1));
    arguments.constant_gradients = static_cast<int32_t>(settings.integer("gradients", 1));
    arguments.unscale = static_cast<float>(1 / settings.number("gradients", 2));
    const bool by_warp = arguments.positions <= GCPP_CUDA_WARP_POSITIONS;
    const Size weigh = by_warp ? Size{32, 8} : Size{256, 1}, sum = by_warp ? Size{8, 128} : Size{32, 32};
    const std::string a = type_of(activations), g = type_of(gradients);
    kernels.launch("gcpp_cam_weights_" + a + "_" + g + "_cuda", {blocks(map.channels, weigh.y), 1}, weigh, arguments,
                   stream);
    kernels.launch("gcpp_cam_sum_" + a + "_cuda", {blocks(arguments.positions, sum.x), 1}, sum, arguments, stream);
    const gcpp_cuda_range range{as<float>(map.values.address), as<float>(map.range.address), 1, arguments.positions, 0};
    kernels.launch("gcpp_range_f32_cuda", {1, 1}, {GCPP_CUDA_RANGE_THREADS, 1}, range, stream);
}

// The map in colours over the frame.
inline void overlay(const Kernels& kernels, const Stream& stream, const Settings& settings, const Map& map,
                    CUdeviceptr frame, CUdeviceptr palette, CUdeviceptr out) {
    gcpp_cuda_overlay arguments{};
    arguments.map.values = as<float>(map.values.address);
    arguments.map.limits = as<float>(map.range.address);
    arguments.map.height = static_cast<int32_t>(map.height);
    arguments.map.width = static_cast<int32_t>(map.width);
    arguments.map.rows = axis_of(settings, "overlay_rows");
    arguments.map.columns = axis_of(settings, "overlay_columns");
    arguments.frame = as<uint8_t>(frame);
    arguments.out = as<uint8_t>(out);
    arguments.palette = as<uint8_t>(palette);
    arguments.height = static_cast<int32_t>(settings.integer("frame", 0));
    arguments.width = static_cast<int32_t>(settings.integer("frame", 1));
    arguments.channels = 3;
    arguments.frame_stride_bytes = arguments.out_stride_bytes = int64_t{3} * arguments.width;
    arguments.keep = static_cast<int32_t>(std::lround((1 - settings.number("blend", 0)) * GCPP_ONE));
    arguments.keep_unseen = static_cast<int32_t>(std::lround(settings.number("blend", 1) * GCPP_ONE));
    const Size grid{blocks(arguments.width, GCPP_CUDA_BYTE_COLUMNS), blocks(arguments.height, GCPP_CUDA_ROWS)};
    kernels.launch("gcpp_overlay_u8_cuda", grid, {32, 8}, arguments, stream);
}
