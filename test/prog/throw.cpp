/*
 * A C++ host that throws and catches through 50 frames, in several threads, for some seconds, and
 * checks that every exception arrives unharmed; also pthread_exit's forced unwinding.
 *
 * usage: throw SECONDS [THREADS]      prints "N thrown, N caught"; exit status 1 when they differ
 */
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::atomic<long> thrown, caught, destroyed;
static std::atomic<bool> is_over;

struct guard {
    ~guard() {
        destroyed++;
    }
};

__attribute__((noinline)) static int descend(int depth, long number) {
    guard g;
    if (depth == 0) {
        thrown++;
        throw std::runtime_error(std::to_string(number));
    }
    int below = descend(depth - 1, number);
    return below + 1;
}

static void work() {
    for (long number = 0; !is_over; number++) {
        try {
            descend(50, number);
        } catch (const std::runtime_error &error) {
            if (std::stol(error.what()) == number)
                caught++;
        }
    }
}

static void *leave_early(void *) {
    guard g;
    pthread_exit(nullptr);
}

int main(int argc, char **argv) {
    int seconds = argc > 1 ? std::atoi(argv[1]) : 1;
    int count = argc > 2 ? std::atoi(argv[2]) : 2;
    std::vector<std::thread> threads;
    for (int i = 0; i < count; i++)
        threads.emplace_back(work);
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    long exits = 0;
    while (std::chrono::steady_clock::now() < end) {
        pthread_t thread;
        if (pthread_create(&thread, nullptr, leave_early, nullptr) == 0) {
            pthread_join(thread, nullptr);
            exits++;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    is_over = true;
    for (auto &thread : threads)
        thread.join();
    std::printf("%ld thrown, %ld caught\n", thrown.load(), caught.load());
    bool is_whole = thrown == caught && destroyed == thrown * 51 + exits;
    return is_whole && thrown > 0 ? 0 : 1;
}
