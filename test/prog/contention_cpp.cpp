// As contention.c with 10 rounds of 400 ms, with what C++ offers: "std_mutex", "std_shared_mutex",
// "std_condition" and "std_timed", a condition with a limit that is not reached.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <mutex>
#include <shared_mutex>
#include <thread>

#define APART __attribute__((noinline))
#define STAY __asm__ volatile("" ::: "memory") // no tail call: the frame is to be seen

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

static const int waiters = 3;
static const int rounds = 10;

static std::mutex mutex;
static void mutex_take() {
    mutex.lock();
}
APART static void std_mutex_lets_go() {
    mutex.unlock();
    STAY;
}
APART static void std_mutex_wants() {
    std::lock_guard<std::mutex> guard(mutex);
    STAY;
}

static std::shared_mutex shared;
static void shared_take() {
    shared.lock();
}
APART static void std_shared_mutex_lets_go() {
    shared.unlock();
    STAY;
}
APART static void std_shared_mutex_wants() {
    std::shared_lock<std::shared_mutex> guard(shared);
    STAY;
}

static std::mutex condition_mutex;
static std::condition_variable condition;
static int tokens;
APART static void std_condition_lets_go() {
    {
        std::lock_guard<std::mutex> guard(condition_mutex);
        tokens = waiters;
    }
    condition.notify_all();
    STAY;
}
APART static void std_condition_wants() {
    std::unique_lock<std::mutex> guard(condition_mutex);
    condition.wait(guard, [] { return tokens > 0; });
    tokens--;
    STAY;
}

static std::mutex timed_mutex;
static std::condition_variable timed;
static int timed_tokens;
APART static void std_timed_lets_go() {
    {
        std::lock_guard<std::mutex> guard(timed_mutex);
        timed_tokens = waiters;
    }
    timed.notify_all();
    STAY;
}
APART static void std_timed_wants() {
    std::unique_lock<std::mutex> guard(timed_mutex);
    timed.wait_for(guard, 10s, [] { return timed_tokens > 0; });
    timed_tokens--;
    STAY;
}

static void nothing() {
}

struct Kind {
    const char *name;
    void (*take)();
    void (*lets_go)();
    void (*wants)();
    std::atomic<long long> waited_ns{0};
    std::atomic<Clock::time_point> began[waiters];
    Clock::duration held{0};
    std::atomic<int> round{0}, finished{0};
    Kind(const char *n, void (*t)(), void (*l)(), void (*w)())
        : name(n), take(t), lets_go(l), wants(w) {
    }
};

static void wait(Kind *kind, int number) {
    for (int round = 1; round <= rounds; round++) {
        while (kind->round.load() < round)
            std::this_thread::sleep_for(200us);
        auto began = Clock::now();
        kind->began[number] = began;
        kind->wants();
        kind->waited_ns += std::chrono::nanoseconds(Clock::now() - began).count();
        kind->finished++;
    }
}

static void hold(Kind *kind) {
    for (int round = 1; round <= rounds; round++) {
        kind->take();
        kind->round = round;
        std::this_thread::sleep_for(400ms);
        auto ended = Clock::now();
        kind->lets_go();
        while (kind->finished.load() < round * waiters)
            std::this_thread::sleep_for(200us);
        for (auto &began : kind->began)
            kind->held += std::max(ended - began.load(), Clock::duration(0));
        std::this_thread::sleep_for(60ms);
    }
}

int main() {
    std::list<Kind> kinds;
    std::list<std::thread> threads;
    kinds.emplace_back("std_mutex", mutex_take, std_mutex_lets_go, std_mutex_wants);
    kinds.emplace_back("std_shared_mutex", shared_take, std_shared_mutex_lets_go,
                       std_shared_mutex_wants);
    kinds.emplace_back("std_condition", nothing, std_condition_lets_go, std_condition_wants);
    kinds.emplace_back("std_timed", nothing, std_timed_lets_go, std_timed_wants);
    for (Kind &kind : kinds) {
        threads.emplace_back(hold, &kind);
        for (int i = 0; i < waiters; i++)
            threads.emplace_back(wait, &kind, i);
    }
    for (std::thread &thread : threads)
        thread.join();
    for (Kind &kind : kinds)
        printf("%s %lld %d %lld\n", kind.name, kind.waited_ns.load(), kind.finished.load(),
               static_cast<long long>(std::chrono::nanoseconds(kind.held).count()));
    printf("done\n");
    fflush(stdout);
    for (;;)
        pause();
}
