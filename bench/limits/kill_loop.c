/* kill() in a bare loop over as many sleeping children as the first argument says. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "rounds.h"

extern char **environ;

int main(int argc, char **argv)
{
    int agents = argc > 1 ? atoi(argv[1]) : 1;
    pid_t *pids = calloc(agents, sizeof *pids);
    char *words[] = {"sleep", "infinity", NULL}, line[4096];
    for (int i = 0; i < agents; i++) {
        if (posix_spawnp(&pids[i], "sleep", NULL, NULL, words, environ)) {
            printf("{\"absent\": \"only %d children could be started\"}\n", i);
            agents = i;
            break;
        }
    }
    puts("{}");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long batches = number_of(line, "batches", 1), done = 0;
        double begun = now();
        for (long b = 0; b < batches; b++)
            for (int i = 0; i < agents; i++)
                done += kill(pids[i], SIGURG) == 0;
        printf("{\"rate\": %f, \"done\": %ld}\n", done / (now() - begun), done);
        fflush(stdout);
    }
    for (int i = 0; i < agents; i++) {
        kill(pids[i], SIGKILL);
        while (waitpid(pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return 0;
}
