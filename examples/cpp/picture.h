// Pictures without a library: reads binary PPM, 24-bit BMP and raw BGR, writes PPM. In memory always BGR, rows packed.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> bgr;  // height * width * 3
};

inline std::vector<uint8_t> read_bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void swap_red_and_blue(std::vector<uint8_t>& pixels) {
    for (size_t index = 0; index + 2 < pixels.size(); index += 3) std::swap(pixels[index], pixels[index + 2]);
}

inline Picture picture_from_ppm(const std::vector<uint8_t>& bytes, const std::string& path) {
    size_t at = 2;  // behind "P6"
    int64_t numbers[3] = {};
    for (int64_t& number : numbers) {
        while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
            if (bytes[at] == '#')
                while (at < bytes.size() && bytes[at] != '\n') ++at;
            else
                ++at;
        }
        for (; at < bytes.size() && std::isdigit(bytes[at]) && number < (1 << 20); ++at)
            number = number * 10 + (bytes[at] - '0');
    }
    ++at;  // one space behind the largest value
    Picture picture{numbers[1], numbers[0], {}};
    const size_t wanted = static_cast<size_t>(picture.height * picture.width * 3);
    if (numbers[2] != 255 || wanted == 0 || bytes.size() < at + wanted)
        throw std::runtime_error(path + ": not a whole PPM of bytes (P6, 255)");
    picture.bgr.assign(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                       bytes.begin() + static_cast<std::ptrdiff_t>(at + wanted));
    swap_red_and_blue(picture.bgr);
    return picture;
}

inline Picture picture_from_bmp(const std::vector<uint8_t>& bytes, const std::string& path) {
    auto number = [&](size_t at) {
        int32_t value = 0;
        if (bytes.size() >= at + 4) std::memcpy(&value, &bytes[at], 4);
        return value;
    };
    const int64_t start = number(10), width = number(18), signed_height = number(22);
    const int64_t height = signed_height < 0 ? -signed_height : signed_height;  // negative: the first row is the upper one
    const int64_t pitch = (width * 3 + 3) / 4 * 4;
    const bool is_plain = bytes.size() >= 54 && bytes[28] == 24 && number(30) == 0;
    if (!is_plain || start < 54 || width < 1 || height < 1 || width > (1 << 20) || height > (1 << 20) ||
        static_cast<int64_t>(bytes.size()) < start + pitch * height)
        throw std::runtime_error(path + ": not a whole BMP of 24 bits without compression");
    Picture picture{height, width, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
    for (int64_t row = 0; row < height; ++row) {
        const int64_t source = start + pitch * (signed_height < 0 ? row : height - 1 - row);
        std::memcpy(&picture.bgr[static_cast<size_t>(row * width * 3)], &bytes[static_cast<size_t>(source)],
                    static_cast<size_t>(width * 3));
    }
    return picture;
}

// By its first bytes; anything else is raw BGR and must have the size that the settings give.
inline Picture read_picture(const std::string& path, int64_t height, int64_t width) {
    const std::vector<uint8_t> bytes = read_bytes(path);
    Picture picture;
    if (bytes.size() > 2 && bytes[0] == 'P' && bytes[1] == '6')
        picture = picture_from_ppm(bytes, path);
    else if (bytes.size() > 2 && bytes[0] == 'B' && bytes[1] == 'M')
        picture = picture_from_bmp(bytes, path);
    else
        picture = {height, static_cast<int64_t>(bytes.size()) / (height * 3), bytes};
    if (picture.height != height || picture.width != width ||
        picture.bgr.size() != static_cast<size_t>(height * width * 3))
        throw std::runtime_error(path + ": expected " + std::to_string(height) + " x " + std::to_string(width) +
                                 " pixels, as the settings say (settings.py MODEL HEIGHTxWIDTH)");
    return picture;
}

inline void write_ppm(const std::string& path, Picture picture) {
    swap_red_and_blue(picture.bgr);
    std::ofstream file(path, std::ios::binary);
    file << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
    file.write(reinterpret_cast<const char*>(picture.bgr.data()), static_cast<std::streamsize>(picture.bgr.size()));
    if (!file) throw std::runtime_error(path + ": cannot be written");
}
