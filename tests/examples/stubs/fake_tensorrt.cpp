// A STAND-IN for TensorRT (NvInfer.h beside it). Its engine is a text:
//
//     fake-engine
//     input frame kFLOAT 1 3 16 16
//     output activations kFLOAT 1 4 7 7
//
// and its network is one that a test can compute too: with m the mean of 100 * (n mod 101) * number n of the float input,
// rounded, number n of an output is ((m + n * length of its name) mod 97) / 97, and integers are 1.
#include "NvInfer.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "fake.h"

namespace {

struct Entry {
    nvinfer1::TensorIOMode mode;
    nvinfer1::DataType type;
    nvinfer1::Dims shape;
    void* address = nullptr;
    int64_t elements() const {
        int64_t count = 1;
        for (int32_t axis = 0; axis < shape.nbDims; ++axis) count *= shape.d[axis];
        return count;
    }
};
using Entries = std::map<std::string, Entry>;

int64_t weighted_mean(const float* values, int64_t count) {
    double sum = 0;
    for (int64_t n = 0; n < count; ++n) sum += 100.0 * static_cast<double>(n % 101) * values[n];
    return std::llround(std::fabs(sum) / static_cast<double>(count));
}

void run(const Entries& entries) {
    int64_t mean = 0;
    for (const auto& [name, entry] : entries)
        if (entry.mode == nvinfer1::TensorIOMode::kINPUT && entry.type == nvinfer1::DataType::kFLOAT)
            mean = weighted_mean(static_cast<float*>(entry.address), entry.elements());
    for (const auto& [name, entry] : entries) {
        if (entry.mode != nvinfer1::TensorIOMode::kOUTPUT) continue;
        for (int64_t n = 0; n < entry.elements(); ++n) {
            const int64_t value = (mean + n * static_cast<int64_t>(name.size())) % 97;
            if (entry.type == nvinfer1::DataType::kINT64)
                static_cast<int64_t*>(entry.address)[n] = 1;
            else
                static_cast<float*>(entry.address)[n] = static_cast<float>(value) / 97;
        }
    }
}

class Context : public nvinfer1::IExecutionContext {
public:
    explicit Context(const Entries& entries) : entries_(entries) { ++live["execution context"]; }
    ~Context() noexcept override { --live["execution context"]; }
    bool setInputShape(const char* name, const nvinfer1::Dims& shape) noexcept override {
        for (auto& [other, entry] : entries_)  // the batch is the same for all
            if (entry.shape.d[0] == -1) entry.shape.d[0] = shape.d[0];
        return entries_.count(name) != 0;
    }
    nvinfer1::Dims getTensorShape(const char* name) const noexcept override { return entries_.at(name).shape; }
    bool setTensorAddress(const char* name, void* address) noexcept override {
        return (entries_.at(name).address = address) != nullptr;
    }
    bool enqueueV3(cudaStream_t) noexcept override {
        const Entries bound = entries_;
        return enqueue([=] { run(bound); }) == CUDA_SUCCESS;
    }

private:
    Entries entries_;
};

class EngineOfText : public nvinfer1::ICudaEngine {
public:
    explicit EngineOfText(std::istringstream text) {
        ++live["engine"];
        static const std::map<std::string, nvinfer1::DataType> types = {{"kFLOAT", nvinfer1::DataType::kFLOAT},
                                                                        {"kINT64", nvinfer1::DataType::kINT64}};
        for (std::string line; std::getline(text, line);) {
            std::istringstream words(line);
            std::string mode, name, type;
            if (!(words >> mode >> name >> type)) continue;
            Entry entry{mode == "input" ? nvinfer1::TensorIOMode::kINPUT : nvinfer1::TensorIOMode::kOUTPUT,
                        types.at(type), {}};
            while (words >> entry.shape.d[entry.shape.nbDims]) ++entry.shape.nbDims;
            names_.push_back(name);
            entries_[name] = entry;
        }
    }
    ~EngineOfText() noexcept override { --live["engine"]; }
    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(names_.size()); }
    const char* getIOTensorName(int32_t index) const noexcept override {
        return names_.at(static_cast<size_t>(index)).c_str();
    }
    nvinfer1::Dims getTensorShape(const char* name) const noexcept override { return entries_.at(name).shape; }
    nvinfer1::DataType getTensorDataType(const char* name) const noexcept override { return entries_.at(name).type; }
    nvinfer1::TensorIOMode getTensorIOMode(const char* name) const noexcept override { return entries_.at(name).mode; }
    nvinfer1::IExecutionContext* createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy) noexcept override {
        return new Context(entries_);
    }

private:
    std::vector<std::string> names_;
    Entries entries_;
};

class Runtime : public nvinfer1::IRuntime {
public:
    Runtime() { ++live["runtime"]; }
    ~Runtime() noexcept override { --live["runtime"]; }
    nvinfer1::ICudaEngine* deserializeCudaEngine(const void* bytes, std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char*>(bytes), size));
        std::string first;
        std::getline(text, first);
        return first == "fake-engine" ? new EngineOfText(std::move(text)) : nullptr;
    }
};

}  // namespace

FAKE void* createInferRuntime_INTERNAL(void*, int32_t) noexcept { return static_cast<nvinfer1::IRuntime*>(new Runtime); }
