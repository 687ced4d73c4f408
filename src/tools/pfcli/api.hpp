// pfcli's side of REST /v1: one request, one answer, and an error as one sentence.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"

namespace pf::tools {

class Api {
  public:
    // HOST:PORT of the conductor's HTTP port.
    [[nodiscard]] static Result<Api> create(const std::string& conductor);

    // Answers are objects; their fields are not checked.
    [[nodiscard]] Result<nlohmann::json> get(const std::string& path) const;
    [[nodiscard]] Result<nlohmann::json> post(const std::string& path,
                                              const nlohmann::json& body) const;
    [[nodiscard]] Result<nlohmann::json> patch(const std::string& path,
                                               const nlohmann::json& body) const;
    [[nodiscard]] Result<nlohmann::json> remove(const std::string& path) const;

    // The error for an answer that is JSON, but lacks what a conductor's has.
    [[nodiscard]] std::unexpected<Error> not_a_conductor() const;

    // One segment of a path or value of a query.
    [[nodiscard]] static std::string escape(std::string_view text);

    // How long a server that is not there yet is waited for; without it: not at all.
    void be_patient(std::chrono::milliseconds patience) { patience_ = patience; }

  private:
    Api(std::string host, int port) : host_(std::move(host)), port_(port) {}
    [[nodiscard]] Result<nlohmann::json> send(const char* method, const std::string& path,
                                              const std::string& body) const;
    std::string host_;
    int port_;
    std::chrono::milliseconds patience_{0};
};

}  // namespace pf::tools
