/* Stands between the real daemon and the C library, for the tests of real faults (see interposer.rs).
 *
 * It goes by a board: a file of 64-bit numbers that the test writes and this library maps, so that a change holds from the next
 * call on. Calls about the record and to the issuer are written to a log in their order. Everything else passes untouched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The places of the board, as in interposer.rs. */
enum { WALL, ROOM, FILE_SYNC, FOLDER_SYNC, RENAME, READ_ONLY, STOP_AT, HANG, DIE_AT, PLACES };
enum { STOP_AFTER_COMMIT = 1, STOP_IN_CONNECT = 2 };

static volatile int64_t *board;
static int calls = -1;
static const char *boot_id;

/* What each descriptor is of: a file of the record, the folder, the issuer's connection, or nothing of interest. */
enum { FILES = 4096 };
static char names[FILES][32];

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("INTERPOSER");
  if (!folder) return;
  char path[4096];
  snprintf(path, sizeof path, "%s/board", folder);
  int file = open(path, O_RDWR | O_CLOEXEC);
  void *map = file < 0 ? MAP_FAILED : mmap(NULL, PLACES * sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (map == MAP_FAILED) abort();
  close(file);
  snprintf(path, sizeof path, "%s/calls", folder);
  calls = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (calls < 0) abort();
  boot_id = getenv("INTERPOSER_BOOT_ID");
  board = map;
}

static void tell(const char *format, ...) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (calls >= 0 && real(calls, line, length) != length) abort();
  if (board[DIE_AT] > 0 && --board[DIE_AT] == 0) kill(getpid(), SIGKILL);
}

static void stop_at(int moment) {
  if (board[STOP_AT] != moment) return;
  board[STOP_AT] = 0;
  kill(getpid(), SIGSTOP);
}

static const char *base(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* The record's name if the path is of one of its files. */
static const char *record(const char *path) {
  const char *name = base(path);
  return strncmp(name, "record.", 7) == 0 ? name : NULL;
}

static const char *name_of(int file) {
  return file >= 0 && file < FILES && names[file][0] ? names[file] : NULL;
}

static void name(int file, const char *name) {
  if (file >= 0 && file < FILES) snprintf(names[file], sizeof names[file], "%s", name);
}

static int refused(void) {
  if (!board || !board[READ_ONLY]) return 0;
  errno = (int)board[READ_ONLY];
  return 1;
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
  const char *of = board ? record(path) : NULL;
  if (of && (flags & (O_WRONLY | O_RDWR | O_CREAT)) && refused()) return -1;
  if (boot_id && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) path = boot_id;
  int file = real(path, flags, mode);
  if (of) name(file, of);
  return file;
}

#define OPEN(function) \
  int function(const char *path, int flags, ...) { \
    static int (*real)(const char *, int, ...); \
    if (!real) real = dlsym(RTLD_NEXT, #function); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return opened(real, path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

int close(int file) {
  REAL(close);
  if (name_of(file)) name(file, "");
  return real(file);
}

ssize_t write(int file, const void *bytes, size_t count) {
  REAL(write);
  const char *of = name_of(file);
  if (!board || !of) return real(file, bytes, count);
  if (strcmp(of, "issuer") == 0) {
    tell("send %.4s\n", (const char *)bytes);
    return real(file, bytes, count);
  }
  int64_t room = board[ROOM];
  if (room == 0) {
    tell("write %s: no space\n", of);
    errno = ENOSPC;
    return -1;
  }
  if (room > 0 && (int64_t)count > room) count = (size_t)room;
  ssize_t written = real(file, bytes, count);
  if (room > 0 && written > 0) board[ROOM] = room - written;
  tell("write %s\n", of);
  return written;
}

static void sending(int file, const char *bytes, size_t count) {
  const char *of = name_of(file);
  if (!board || !of || strcmp(of, "issuer") != 0) return;
  tell("send %.*s\n", count < 4 ? (int)count : 4, bytes);
}

ssize_t send(int file, const void *bytes, size_t count, int flags) {
  REAL(send);
  sending(file, bytes, count);
  return real(file, bytes, count, flags);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  if (count > 0) sending(file, parts[0].iov_base, parts[0].iov_len);
  return real(file, parts, count);
}

int connect(int file, const struct sockaddr *address, socklen_t length) {
  REAL(connect);
  if (board && address->sa_family == AF_INET) {
    name(file, "issuer");
    tell("connect\n");
  }
  int result = real(file, address, length);
  int why = errno;
  if (board && address->sa_family == AF_INET) stop_at(STOP_IN_CONNECT);
  errno = why;
  return result;
}

int fsync(int file) {
  REAL(fsync);
  struct stat about;
  int folder = fstat(file, &about) == 0 && S_ISDIR(about.st_mode);
  const char *of = folder ? "folder" : name_of(file);
  if (!board || !of) return real(file);
  while (board[HANG]) usleep(1000);
  int64_t why = board[folder ? FOLDER_SYNC : FILE_SYNC];
  int result = why ? -1 : real(file);
  tell("fsync %s%s\n", of, why ? ": failed" : "");
  if (why) errno = (int)why;
  return result;
}

int rename(const char *from, const char *to) {
  REAL(rename);
  if (!board || !record(to)) return real(from, to);
  if (refused()) return -1;
  int64_t why = board[RENAME];
  int result = why ? -1 : real(from, to);
  tell("rename %s %s%s\n", base(from), base(to), why ? ": failed" : "");
  if (why) errno = (int)why;
  else stop_at(STOP_AFTER_COMMIT);
  return result;
}

int unlink(const char *path) {
  REAL(unlink);
  if (record(path) && refused()) return -1;
  return real(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(clock_gettime);
  int result = real(clock, now);
  if (result == 0 && board && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t nanoseconds = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + board[WALL];
    now->tv_sec = nanoseconds / 1000000000;
    now->tv_nsec = nanoseconds % 1000000000;
  }
  return result;
}
