#include "pool.h"

#include <pthread.h>
#include <signal.h>

/* A call that is being worked on. It lies on the caller's stack and in the list while parts are left. */
typedef struct gcpp_job {
    gcpp_part work;
    void *context;
    int32_t parts, next_part;
    int32_t slots, next_slot;
    int32_t helpers; /* at work on it now */
    pthread_cond_t no_helpers;
    struct gcpp_job *next;
} gcpp_job;

static struct {
    pthread_mutex_t lock; /* of all below, and of every job */
    pthread_cond_t new_job;
    gcpp_job *first;
    int32_t helpers;
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0};

static pthread_once_t fork_is_watched = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&pool.lock);
}

/* Only the thread that forked lives on: there are no helpers, and nobody waits for the jobs of others. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.new_job, NULL);
    pool.first = NULL;
    pool.helpers = 0;
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static int wants_help(const gcpp_job *job)
{
    return job->next_part < job->parts && job->next_slot < job->slots;
}

/* Takes parts while there are any. Called with the lock held, which is given up for the work. */
static void take_parts(gcpp_job *job, int32_t slot)
{
    while (job->next_part < job->parts) {
        const int32_t part = job->next_part++;
        pthread_mutex_unlock(&pool.lock);
        job->work(job->context, part, slot);
        pthread_mutex_lock(&pool.lock);
    }
}

static gcpp_job *job_to_help(void)
{
    gcpp_job *job = pool.first;
    while (job && !wants_help(job))
        job = job->next;
    return job;
}

static void *help(void *nothing)
{
    (void)nothing;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        gcpp_job *const job = job_to_help();
        if (!job) {
            pthread_cond_wait(&pool.new_job, &pool.lock);
            continue;
        }
        job->helpers++;
        take_parts(job, job->next_slot++);
        if (--job->helpers == 0)
            pthread_cond_signal(&job->no_helpers);
    }
    return NULL;
}

/* Signals are for the threads of the program. */
static int start_helper(void)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failure = pthread_create(&thread, NULL, help, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failure)
        pthread_detach(thread);
    return !failure;
}

static void remove_job(gcpp_job *job)
{
    gcpp_job **link = &pool.first;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
}

int32_t gcpp_useful_threads(int32_t threads, size_t bytes)
{
    /* a helper is at work some 20 us after it is called: 1.2 MB took two threads 1.3 to 1.8 times as long as one */
    const size_t bytes_each = (size_t)1 << 20;
    const size_t useful = bytes / bytes_each;
    const int32_t most = threads < GCPP_MAX_THREADS ? threads : GCPP_MAX_THREADS;
    return useful < 2 || most < 2 ? 1 : useful < (size_t)most ? (int32_t)useful : most;
}

void gcpp_in_parts(int32_t threads, int32_t parts, gcpp_part work, void *context)
{
    gcpp_job job = {work, context, parts, 0, threads, 1, 0, PTHREAD_COND_INITIALIZER, NULL};
    if (threads < 2 || parts < 2) {
        for (int32_t part = 0; part < parts; part++)
            work(context, part, 0);
        return;
    }
    pthread_once(&fork_is_watched, watch_forks);
    pthread_mutex_lock(&pool.lock);
    while (pool.helpers < threads - 1 && start_helper())
        pool.helpers++;
    job.next = pool.first;
    pool.first = &job;
    for (int32_t helper = 1; helper < threads && helper < parts; helper++)
        pthread_cond_signal(&pool.new_job);
    take_parts(&job, 0);
    remove_job(&job);
    while (job.helpers)
        pthread_cond_wait(&job.no_helpers, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_cond_destroy(&job.no_helpers);
}
