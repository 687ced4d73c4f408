// Bytes as an NBD client sends them, and a look at what came back. For tests and fuzz seeds.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attach/loop_reactor.hpp"
#include "attach/nbd_protocol.hpp"

namespace pf::attach::nbd {

class TestClient {
  public:
    explicit TestClient(std::shared_ptr<LoopPipe> pipe) : pipe_(std::move(pipe)) {}

    TestClient& bytes(const std::vector<std::byte>& data) {
        pipe_->to_server.insert(pipe_->to_server.end(), data.begin(), data.end());
        return *this;
    }
    TestClient& flags(uint32_t value) {
        std::vector<std::byte> out;
        Writer(out).put(value);
        return bytes(out);
    }
    TestClient& option(Option option, std::string_view data = {}) {
        std::vector<std::byte> out;
        Writer(out).put(option_magic).put(static_cast<uint32_t>(option));
        Writer(out).put(static_cast<uint32_t>(data.size())).put(data);
        return bytes(out);
    }
    // INFO and GO.
    TestClient& info(Option which, std::string_view name) {
        return option(which, text_field(name) + std::string(2, '\0'));
    }
    TestClient& meta_context(Option which, std::string_view name, std::string_view query) {
        return option(which, text_field(name) + number(1) + text_field(query));
    }
    TestClient& request(Command command, uint64_t cookie, uint64_t offset, uint32_t length,
                        uint16_t command_flags = 0) {
        std::vector<std::byte> out;
        Writer(out).put(request_magic).put(command_flags).put(static_cast<uint16_t>(command));
        Writer(out).put(cookie).put(offset).put(length);
        return bytes(out);
    }
    TestClient& payload(size_t count, uint8_t value) {
        return bytes(std::vector<std::byte>(count, std::byte{value}));
    }

    LoopPipe& pipe() { return *pipe_; }
    std::vector<std::byte>& received() { return pipe_->from_server; }
    // Takes a big-endian number off the front of what came back.
    template <class T>
    T take() {
        T value = 0;
        PF_ASSERT(received().size() >= sizeof(T));
        for (size_t i = 0; i < sizeof(T); ++i)
            value = static_cast<T>((value << 8) | static_cast<T>(received()[i]));
        skip(sizeof(T));
        return value;
    }
    void skip(size_t count) {
        received().erase(received().begin(), received().begin() + static_cast<long>(count));
    }
    // An option's reply: its type; the data is dropped.
    OptionReply take_option_reply() {
        PF_ASSERT(take<uint64_t>() == option_reply_magic);
        skip(4);
        const auto type = static_cast<OptionReply>(take<uint32_t>());
        skip(take<uint32_t>());
        return type;
    }
    struct Simple {
        ErrorNumber error;
        uint64_t cookie;
    };
    Simple take_simple() {
        PF_ASSERT(take<uint32_t>() == simple_reply_magic);
        const auto error = static_cast<ErrorNumber>(take<uint32_t>());
        return {error, take<uint64_t>()};
    }
    struct ChunkHeader {
        uint16_t flags;
        uint16_t type;
        uint64_t cookie;
        uint32_t length;
    };
    ChunkHeader take_chunk() {
        PF_ASSERT(take<uint32_t>() == structured_reply_magic);
        ChunkHeader header{};
        header.flags = take<uint16_t>();
        header.type = take<uint16_t>();
        header.cookie = take<uint64_t>();
        header.length = take<uint32_t>();
        return header;
    }

    static std::string number(uint32_t value) {
        std::vector<std::byte> out;
        Writer(out).put(value);
        return std::string(as_text(out));
    }
    static std::string text_field(std::string_view text) {
        return number(static_cast<uint32_t>(text.size())) + std::string(text);
    }

  private:
    std::shared_ptr<LoopPipe> pipe_;
};

}  // namespace pf::attach::nbd
