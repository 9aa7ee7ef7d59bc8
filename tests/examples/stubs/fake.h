// What the two stand-ins share.
#pragma once

#include <cuda.h>

#include <functional>
#include <map>
#include <string>

#define FAKE extern "C" __attribute__((visibility("default")))

using Work = std::function<void()>;

extern std::map<std::string, int> live;  // what was taken and not given back, by kind
CUresult enqueue(Work work);             // does it, or records it
