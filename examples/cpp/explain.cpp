// Where did the network look? One frame through a TensorRT engine and the CUDA kernels, without Python.
//
//     explain ENGINE FATBIN SETTINGS FRAME OUT.ppm [TARGET] [REPEATS]
//
// ENGINE: of `gcpp-edge build`, or of trtexec. FATBIN: the kernels, which the Makefile compiles. SETTINGS: of settings.py.
// FRAME: PPM, BMP or raw BGR of the size that the settings say. TARGET: a class, or a negative rank (-1, the best).
// The frame's work is recorded as one CUDA graph; a camera would fill `frame.host()` and call `work.run()` again.

#include <chrono>
#include <iostream>

#include "engine.h"
#include "gpu.h"
#include "kernels.h"
#include "picture.h"
#include "settings.h"

template <typename T>
T number_from(const Tensor& tensor, size_t index, CUstream stream) {
    T value{};
    check(cuMemcpyDtoHAsync(&value, tensor.address() + index * sizeof(T), sizeof(T), stream), "a result");
    check(cuStreamSynchronize(stream), "a result");
    return value;
}

static void explain(int count, char** words) {
    const Settings settings(words[3]);
    const int64_t height = settings.integer("frame", 0), width = settings.integer("frame", 1);
    const Picture picture = read_picture(words[4], height, width);
    const int64_t target = count > 6 ? std::stoll(words[6]) : -1;
    const int repeats = count > 7 ? std::stoi(words[7]) : 1;

    const Gpu gpu;
    const Stream stream;
    const Engine engine(read_bytes(words[1]));
    const Kernels kernels(read_bytes(words[2]));
    const SharedMemory frame(gpu, picture.bgr.size()), drawn(gpu, picture.bgr.size());
    const Map map(settings);
    const std::vector<uint8_t> colours = settings.palette();
    const DeviceMemory palette(colours.size());
    check(cuMemcpyHtoD(palette.address, colours.data(), colours.size()), "the palette");
    check(cuMemcpyHtoD(engine[settings.word("target")].address(), &target, sizeof target), "the target");
    std::memcpy(frame.host(), picture.bgr.data(), picture.bgr.size());

    const Frame work(stream, [&] {
        frame.send(stream.handle);
        preprocess(kernels, stream, settings, frame.address, engine[settings.word("input")]);
        engine.enqueue(stream);
        cam(kernels, stream, settings, engine, map);
        overlay(kernels, stream, settings, map, frame.address, palette.address, drawn.address);
        drawn.fetch(stream.handle);
    });
    const auto began = std::chrono::steady_clock::now();
    for (int repeat = 0; repeat < repeats; ++repeat) work.run();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - began;

    const auto chosen = number_from<int64_t>(engine[settings.word("target_class")], 0, stream.handle);
    std::cout << settings.label(static_cast<size_t>(chosen)) << '\n';
    if (!engine[settings.word("scores")].is_half())
        std::cout << "score "
                  << number_from<float>(engine[settings.word("scores")], static_cast<size_t>(chosen), stream.handle)
                  << '\n';
    std::cout << (work.recorded ? "one CUDA graph a frame" : "recording was refused: launched one by one") << ", "
              << took.count() / repeats << " us\n";
    write_ppm(words[5], {height, width, {drawn.host(), drawn.host() + drawn.bytes}});
}

int main(int count, char** words) {
    if (count < 6 || count > 8) {
        std::cerr << "usage: explain ENGINE FATBIN SETTINGS FRAME OUT.ppm [TARGET] [REPEATS]\n";
        return 2;
    }
    try {
        explain(count, words);
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "explain: " << error.what() << '\n';
        return 1;
    }
}
