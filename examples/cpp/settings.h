// What the example must know of an explained model: the file that settings.py writes, a key and its words a line.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

class Settings {
public:
    explicit Settings(const std::string& path) : path_(path) {
        std::ifstream file(path);
        if (!file) throw std::runtime_error(path + ": cannot be read; settings.py writes it");
        for (std::string line; std::getline(file, line);) {
            std::istringstream words(line);
            std::string key, word;
            words >> key;
            if (key == "label") {
                size_t index = 0;
                words >> index >> std::ws;
                std::getline(words, labels_[index]);
                continue;
            }
            while (words >> word) entries_[key].push_back(word);
        }
    }

    const std::string& word(const std::string& key, size_t index = 0) const {
        auto found = entries_.find(key);
        if (found == entries_.end() || found->second.size() <= index)
            throw std::runtime_error(path_ + ": has no word " + std::to_string(index) + " of '" + key + "'");
        return found->second[index];
    }

    double number(const std::string& key, size_t index = 0) const { return std::stod(word(key, index)); }
    int64_t integer(const std::string& key, size_t index = 0) const { return std::stoll(word(key, index)); }

    // One number a channel of the network's input.
    void fill(const std::string& key, float (&values)[4]) const {
        for (size_t index = 0; index < 4 && index < static_cast<size_t>(integer("input", 1)); ++index)
            values[index] = static_cast<float>(number(key, index));
    }

    std::vector<uint8_t> palette() const {
        std::vector<uint8_t> colours(256 * 3);
        for (size_t index = 0; index < colours.size(); ++index)
            colours[index] = static_cast<uint8_t>(integer("palette", index));
        return colours;
    }

    std::string label(size_t index) const {
        auto found = labels_.find(index);
        return found == labels_.end() ? "class " + std::to_string(index) : found->second;
    }

private:
    std::string path_;
    std::map<std::string, std::vector<std::string>> entries_;
    std::map<size_t, std::string> labels_;
};
