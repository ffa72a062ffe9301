/* `esolm .. >&-` must not lose its output in silence. Rust's runtime opens /dev/null in place of a standard output that is
 * closed, before any Rust code of the command runs, and then nothing tells it from one that was redirected there. The
 * system runs this before Rust's runtime: it puts a socket there that is connected to nothing, to which every write
 * fails (ENOTCONN). */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((constructor)) static void refuse_writing_to_closed_stdout(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) != -1)
        return;
    int unconnected = socket(AF_UNIX, SOCK_STREAM, 0);
    /* The lowest number that is free: that of standard input, if that is closed, too. */
    if (unconnected != -1 && unconnected != STDOUT_FILENO) {
        dup2(unconnected, STDOUT_FILENO);
        close(unconnected);
    }
}
