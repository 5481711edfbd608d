/*
 * A program that closes and replaces descriptors it does not own: fdchaos ROUNDS
 *
 * Every round it makes a pipe, puts its write end over random numbers and closes those again; about
 * once a second it closes everything above 2, as daemons do. It counts bytes that come out of its
 * pipes without having been written: a guest that writes to a number that is not its own any more
 * is caught. It ends when it is told to (SIGTERM) and has done its rounds. Exit 0: none.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned long rounds, foreign;
static volatile sig_atomic_t is_over;

static void end(int number) {
    is_over = number;
}

static void drain(int fd, unsigned char wanted) {
    unsigned char bytes[256];
    ssize_t count;
    while ((count = read(fd, bytes, sizeof(bytes))) > 0)
        for (ssize_t i = 0; i < count; i++)
            foreign += bytes[i] != wanted;
}

static void close_all(int except) {
    for (int number = 3; number < 1024; number++)
        if (number != except)
            close(number);
}

static void run_round(unsigned *seed) {
    int pair[2], numbers[50];
    unsigned char mark = (unsigned char)rounds;
    if (pipe(pair) != 0)
        return;
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 50; i++) {
        numbers[i] = 3 + rand_r(seed) % 1000;
        if (numbers[i] != pair[0])
            dup2(pair[1], numbers[i]);
    }
    (void)!write(pair[1], &mark, 1);
    usleep(2000);
    drain(pair[0], mark);
    for (int i = 0; i < 50; i++)
        if (numbers[i] != pair[0])
            close(numbers[i]);
    if (rounds % 50 == 49)
        close_all(pair[0]);
    drain(pair[0], mark);
    close(pair[1]);
    close(pair[0]);
}

int main(int argc, char **argv) {
    unsigned long least = argc > 1 ? strtoul(argv[1], NULL, 10) : 200;
    unsigned seed = 1;
    signal(SIGTERM, end);
    for (; !is_over || rounds < least; rounds++) {
        run_round(&seed);
        usleep(18000);
    }
    printf("%lu rounds, %lu foreign bytes\n", rounds, foreign);
    return foreign ? 1 : 0;
}
