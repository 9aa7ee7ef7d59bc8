// A TensorRT engine with all of its tensors in device memory. TensorRT 10 and newer, and TensorRT for RTX.
#pragma once

#include <NvInfer.h>

#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gpu.h"

class Log : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << message << '\n';
    }
};

inline size_t bytes_of(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT:
        case nvinfer1::DataType::kINT32: return 4;
        case nvinfer1::DataType::kHALF: return 2;
        case nvinfer1::DataType::kINT64: return 8;
        case nvinfer1::DataType::kUINT8:
        case nvinfer1::DataType::kINT8:
        case nvinfer1::DataType::kBOOL: return 1;
        default: throw std::runtime_error("a tensor has a type that this example does not know");
    }
}

struct Tensor {
    std::unique_ptr<DeviceMemory> memory;
    nvinfer1::DataType type;
    size_t elements;
    bool is_half() const { return type == nvinfer1::DataType::kHALF; }
    CUdeviceptr address() const { return memory->address; }
};

class Engine {
public:
    explicit Engine(const std::vector<uint8_t>& bytes) {
        runtime_.reset(nvinfer1::createInferRuntime(log_));
        if (!runtime_) throw std::runtime_error("TensorRT does not start");
        engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine_) throw std::runtime_error("the engine is not for this GPU or this TensorRT: build it here");
        context_.reset(engine_->createExecutionContext());
        if (!context_) throw std::runtime_error("there is no memory for the network");
        for (int32_t index = 0; index < engine_->getNbIOTensors(); ++index) fix_batch(engine_->getIOTensorName(index));
        for (int32_t index = 0; index < engine_->getNbIOTensors(); ++index) bind(engine_->getIOTensorName(index));
    }

    const Tensor& operator[](const std::string& name) const {
        auto found = tensors_.find(name);
        if (found == tensors_.end()) throw std::runtime_error("the engine has no tensor '" + name + "'");
        return found->second;
    }

    void enqueue(const Stream& stream) const {
        if (!context_->enqueueV3(stream.handle)) throw std::runtime_error("TensorRT refused the frame");
    }

private:
    // One frame at a time, also where the engine takes any batch.
    void fix_batch(const char* name) {
        nvinfer1::Dims shape = engine_->getTensorShape(name);
        if (engine_->getTensorIOMode(name) != nvinfer1::TensorIOMode::kINPUT || shape.nbDims < 1 || shape.d[0] != -1)
            return;
        shape.d[0] = 1;
        if (!context_->setInputShape(name, shape))
            throw std::runtime_error(std::string("the engine takes no single frame as '") + name + "'");
    }

    void bind(const char* name) {
        const nvinfer1::Dims shape = context_->getTensorShape(name);
        Tensor tensor{nullptr, engine_->getTensorDataType(name), 1};
        for (int32_t axis = 0; axis < shape.nbDims; ++axis) tensor.elements *= static_cast<size_t>(shape.d[axis]);
        tensor.memory = std::make_unique<DeviceMemory>(tensor.elements * bytes_of(tensor.type));
        if (!context_->setTensorAddress(name, reinterpret_cast<void*>(tensor.address())))
            throw std::runtime_error(std::string("TensorRT takes no memory for '") + name + "'");
        tensors_[name] = std::move(tensor);
    }

    Log log_;  // outlives all that follows, which is freed from the last to the first
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::map<std::string, Tensor> tensors_;
};
