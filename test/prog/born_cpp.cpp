// std::thread and std::async, alive until the program is ended.
#include <chrono>
#include <cstdio>
#include <future>
#include <thread>
#include <vector>

#include <pthread.h>
#include <unistd.h>

static void rest_for_ever(const char *name) {
    pthread_setname_np(pthread_self(), name);
    for (;;)
        std::this_thread::sleep_for(std::chrono::hours(1));
}

[[gnu::noinline]] void start_team(std::vector<std::thread> &team) {
    for (int i = 0; i < 2; i++)
        team.emplace_back(rest_for_ever, "team");
}

[[gnu::noinline]] std::future<void> start_later() {
    return std::async(std::launch::async, rest_for_ever, "later");
}

int main() {
    std::vector<std::thread> team;
    start_team(team);
    std::future<void> later = start_later();
    std::puts("ready");
    std::fflush(stdout);
    later.wait();
}
