// Goal: a configuration is taken whole and typed, and every mistake is named.
#include "base/config.hpp"

#include <gtest/gtest.h>

namespace pf {
namespace {

constexpr ConfigKey keys[] = {
    {"listen.http", ConfigType::text, "127.0.0.1:49180", "Where REST is served."},
    {"limits.body_bytes", ConfigType::size, "1M", "Largest body."},
    {"heartbeat.interval", ConfigType::duration, "500ms", "Time between heartbeats."},
    {"heartbeat.missed", ConfigType::integer, "4", "Heartbeats missed."},
    {"log.verbose", ConfigType::boolean, "false", "Say more."},
    {"store.trays", ConfigType::list, "", "Trays to open."},
};

TEST(Config, DefaultsAndFile) {
    Config config(keys);
    EXPECT_EQ(config.duration_ns("heartbeat.interval"), 500'000'000u);
    EXPECT_TRUE(config.list("store.trays").empty());
    const auto loaded = config.load_text(
        "[heartbeat]\ninterval = '2s'\nmissed = 7\n[store]\ntrays = ['/a', '/b']\n"
        "[limits]\nbody_bytes = 4096\n[log]\nverbose = true\n",
        "test.toml");
    ASSERT_TRUE(loaded) << loaded.error().text();
    EXPECT_EQ(config.duration_ns("heartbeat.interval"), 2'000'000'000u);
    EXPECT_EQ(config.integer("heartbeat.missed"), 7u);
    EXPECT_EQ(config.list("store.trays"), (std::vector<std::string>{"/a", "/b"}));
    EXPECT_EQ(config.size_bytes("limits.body_bytes"), 4096u);
    EXPECT_TRUE(config.boolean("log.verbose"));
    EXPECT_TRUE(config.set("listen.http", "[::1]:80"));
    EXPECT_EQ(config.text("listen.http"), "[::1]:80");
}

TEST(Config, UnknownKeyNamesTheNearest) {
    Config config(keys);
    const auto loaded = config.load_text("[heartbeat]\nintervall = '2s'\n", "test.toml");
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().message,
              "test.toml: unknown key 'heartbeat.intervall': did you mean 'heartbeat.interval'?");
}

TEST(Config, WrongTypesAndSyntax) {
    for (const auto* text :
         {"[heartbeat]\ninterval = 5\n", "[heartbeat]\nmissed = -1\n",
          "[heartbeat]\nmissed = 1.5\n", "[log]\nverbose = 'yes'\n",
          "[limits]\nbody_bytes = '1X'\n", "[limits\n", "[listen]\nhttp = ['a', 'b']\n",
          "[store]\ntrays = [['a']]\n", "[store]\ntrays = ['a', 3]\n", "[limit]\n",
          "limits.body = {}\n", "limits = 3\n"}) {
        Config config(keys);
        const auto loaded = config.load_text(text, "test.toml");
        ASSERT_FALSE(loaded) << text;
        EXPECT_TRUE(loaded.error().message.starts_with("test.toml")) << loaded.error().message;
    }
    EXPECT_TRUE(Config(keys).load_text("[store]\n", "test.toml"));
    EXPECT_FALSE(Config(keys).load_file("/nonexistent/file.toml"));
    EXPECT_FALSE(Config(keys).load_file("/")) << "a folder is not an empty file";
    EXPECT_TRUE(Config(keys).load_file("/dev/null"));
}

// Found by fuzzing: the library called these unreachable, which they are not.
TEST(Config, LettersBeyondAsciiBelongIntoTextsAndComments) {
    for (const char* bad :
         {"gr\u00f6\u00dfe = 1\n", "\ufebf.\u000f = 1\n", "[log]\nverbose = \ufa30\n",
          "[log]\nverbose\u1680= true\n", "[log]\nverbose = true \u0101\n"}) {
        Config config(keys);
        const auto loaded = config.load_text(bad, "test.toml");
        ASSERT_FALSE(loaded) << bad;
        EXPECT_NE(loaded.error().message.find("test.toml"), std::string::npos);
    }
    Config config(keys);
    ASSERT_TRUE(config.load_text(
        "# \u00fc \ufebf\n[store]\ntrays = ['/gr\u00f6\u00dfe', \"/\ufebf\"]\n", "test.toml"));
    EXPECT_EQ(config.list("store.trays"),
              (std::vector<std::string>{"/gr\u00f6\u00dfe", "/\ufebf"}));
}

TEST(Config, Durations) {
    EXPECT_EQ(*parse_duration("100us"), 100'000u);
    EXPECT_EQ(*parse_duration("1h"), 3'600'000'000'000u);
    for (const auto* text : {"", "5", "s", "-1s", "1.5s", "99999999999999999h", "1 s"}) {
        EXPECT_FALSE(parse_duration(text)) << text;
    }
}

}  // namespace
}  // namespace pf
