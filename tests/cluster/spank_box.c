/* spank_box: a small stand-in for pyxis, written from its documented options only.
 * srun --container-image=/x.sqsh ... : the task gets a mount namespace of its own whose root is the squashfs
 * (loop mount + tmpfs overlay) with /proc /sys /dev, /tmp of its own, and the asked bind mounts. The root is read-only, as enroot's is by
 * default, unless --container-writable or PYXIS_CONTAINER_WRITABLE in srun's environment asks for a writable one.
 * Registry references (host:port#name:tag, docker://...) are first imported by "importer=<path of enroot>".
 * plugstack: required spank_box.so workdir=/run/box importer=/usr/local/bin/enroot
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <slurm/spank.h>

SPANK_PLUGIN(box, 1)

enum { IMAGE = 1, MOUNTS, WORKDIR, NAME, ENVS, HOME_ON, HOME_OFF, WRITABLE, READONLY, REMAP, NOREMAP, EP, NOEP };
static char *image, *mounts, *workdir, *envs; static const char *inside_wd = "/"; static int home, writable = -1;
static int *failed; /* shared with the task's process, which is a child */
static const char *base = "/run/box", *importer = "enroot";

static int on_opt(int v, const char *a, int remote)
{
	(void)remote;
	switch (v) {
	case IMAGE:   free(image);   image = strdup(a); break;
	case MOUNTS:  free(mounts);  mounts = strdup(a); break;
	case WORKDIR: free(workdir); workdir = strdup(a); break;
	case ENVS:    free(envs);    envs = strdup(a); break;
	case HOME_ON: home = 1; break;
	case HOME_OFF: home = 0; break;
	case WRITABLE: writable = 1; break;
	case READONLY: writable = 0; break;
	}
	return 0;
}
#define O(n, ai, help, arg, v) { (char *)n, (char *)ai, (char *)"[box] " help, arg, v, on_opt }
static struct spank_option opts[] = {
	O("container-image", "IMAGE|PATH", "image: .sqsh path or [registry#]name[:tag]", 1, IMAGE),
	O("container-mounts", "SRC:DST[:FLAGS],...", "bind mounts, flags joined by +", 1, MOUNTS),
	O("container-workdir", "PATH", "working directory in the container", 1, WORKDIR),
	O("container-name", "NAME", "accepted, not used", 1, NAME),
	O("container-env", "NAME,...", "host variables that win over the image's", 1, ENVS),
	O("container-mount-home", NULL, "bind the home directory", 0, HOME_ON),
	O("no-container-mount-home", NULL, "do not bind the home directory", 0, HOME_OFF),
	O("container-writable", NULL, "writable root", 0, WRITABLE),
	O("container-readonly", NULL, "read-only root (default)", 0, READONLY),
	O("container-remap-root", NULL, "accepted, not used", 0, REMAP),
	O("no-container-remap-root", NULL, "accepted, not used", 0, NOREMAP),
	O("container-entrypoint", NULL, "accepted, not used", 0, EP),
	O("no-container-entrypoint", NULL, "accepted, not used", 0, NOEP),
	SPANK_OPTIONS_TABLE_END
};

int slurm_spank_init(spank_t sp, int ac, char **av)
{
	for (int i = 0; i < ac; i++) {
		if (!strncmp(av[i], "workdir=", 8)) base = av[i] + 8;
		else if (!strncmp(av[i], "importer=", 9)) importer = av[i] + 9;
	}
	if (spank_context() == S_CTX_REMOTE) failed = mmap(NULL, sizeof *failed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* like pyxis: srun, salloc and sbatch know the options */
	if (spank_context() == S_CTX_SLURMD || spank_context() == S_CTX_JOB_SCRIPT) return 0;
	for (struct spank_option *o = opts; o->name; o++)
		if (spank_option_register(sp, o) != ESPANK_SUCCESS) { slurm_error("pyxis: cannot register --%s", o->name); return -1; }
	return 0;
}

/* runs a program; what it says goes to the file `log`, without one to the task's stderr */
static int run(const char *const argv[], const char *log)
{
	int st; pid_t p = fork();
	if (p < 0) return -1;
	if (p == 0) { int n = open("/dev/null", O_RDWR); dup2(n, 0); dup2(n, 1); if (log) dup2(open(log, O_CREAT | O_TRUNC | O_WRONLY, 0600), 2); setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1); execvp(argv[0], (char *const *)argv); _exit(127); }
	while (waitpid(p, &st, 0) < 0 && errno == EINTR);
	return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}
static void mkparents(char *p) { for (char *q = p + 1; *q; q++) if (*q == '/') { *q = 0; mkdir(p, 0755); *q = '/'; } }

static int bind_one(const char *root, const char *src, const char *dst, const char *flags)
{
	char t[4096]; struct stat st; unsigned long ro = flags && strstr(flags, "ro") == flags ? MS_RDONLY : 0;
	snprintf(t, sizeof t, "%s%s", root, dst);
	if (stat(src, &st) < 0) { slurm_error("pyxis: mount source %s: %s", src, strerror(errno)); return -1; }
	mkparents(t);
	if (S_ISDIR(st.st_mode)) mkdir(t, 0755); else close(open(t, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	if (mount(src, t, NULL, MS_BIND | MS_REC, NULL) < 0) { slurm_error("pyxis: bind %s on %s: %s", src, dst, strerror(errno)); return -1; }
	if (ro && mount(NULL, t, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0) { slurm_error("pyxis: remount ro %s: %s", dst, strerror(errno)); return -1; }
	return 0;
}

static int in_list(const char *list, const char *name, size_t n)
{
	for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strcspn(p, ",") == n && !strncmp(p, name, n)) return 1;
	return 0;
}

/* as pyxis reads a variable */
static int is_yes(const char *text)
{
	return !strcasecmp(text, "1") || !strcasecmp(text, "y") || !strcasecmp(text, "yes") || !strcasecmp(text, "true");
}

/* enroot unpacks an image as the user, who may not create device files */
static int has_devices(const char *img)
{
	char command[4300];
	snprintf(command, sizeof command, "PATH=/usr/sbin:/usr/bin:/sbin:/bin unsquashfs -lls '%s' 2>/dev/null | grep -q '^[bc]'", img);
	const char *a[] = { "sh", "-c", command, NULL };
	return run(a, NULL) == 0;
}

static int start(spank_t sp)
{
	char root[512], low[600], top[600], img[4096], opt[2048], buf[4096]; const char *wd = workdir; uid_t uid; uint32_t job, step; int task;
	if (!image) return 0;
	spank_get_item(sp, S_JOB_UID, &uid); spank_get_item(sp, S_JOB_ID, &job); spank_get_item(sp, S_JOB_STEPID, &step); spank_get_item(sp, S_TASK_ID, &task);
	mkdir(base, 0755);
	if (image[0] == '/' || image[0] == '.') snprintf(img, sizeof img, "%s", image);
	else {  /* a reference: import once per job */
		const char *ref = strncmp(image, "docker://", 9) ? image : image + 9;
		snprintf(buf, sizeof buf, "docker://%s", ref);
		snprintf(img, sizeof img, "%s/%u.%u.%d.sqsh", base, job, step, task);
		slurm_info("pyxis: importing docker image: %s", ref);
		char log[4100], line[2048]; snprintf(log, sizeof log, "%s.log", img);
		const char *a[] = { importer, "import", "-o", img, buf, NULL };
		int rc = run(a, log);
		if (rc) {  /* in pyxis' words: they are what people, and evalmake, look for in a log */
			FILE *f = fopen(log, "r");
			slurm_error("pyxis: child %d failed with error code: %d", (int)getpid(), rc);
			slurm_error("pyxis: failed to import docker image");
			slurm_error("pyxis: printing enroot log file:");
			while (f && fgets(line, sizeof line, f)) { line[strcspn(line, "\n")] = 0; slurm_error("pyxis:     %s", line); }
			if (f) fclose(f);
			unlink(log); unlink(img);
			return -1;
		}
		unlink(log);
		slurm_info("pyxis: imported docker image: %s", ref);
	}
	if (access(img, R_OK)) {
		slurm_error("pyxis: child %d failed with error code: 1", (int)getpid());
		slurm_error("pyxis: failed to create container filesystem");
		slurm_error("pyxis: printing enroot log file:");
		slurm_error("pyxis:     [ERROR] %s: %s", strerror(errno), img);
		return -1;
	}
	if (uid != 0 && has_devices(img)) {
		slurm_error("pyxis: failed to create container filesystem");
		slurm_error("pyxis: printing enroot log file:");
		slurm_error("pyxis:     [INFO] Extracting squashfs filesystem...");
		slurm_error("pyxis:     create_inode: could not create character device /dev/null, because you're not superuser!");
		return -1;
	}
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL)) { slurm_error("pyxis: mount namespace: %s", strerror(errno)); return -1; }
	snprintf(root, sizeof root, "%s/mnt", base); mkdir(root, 0755);           /* private to this namespace */
	if (mount("box", root, "tmpfs", 0, "mode=755")) { slurm_error("pyxis: tmpfs: %s", strerror(errno)); return -1; }
	snprintf(low, sizeof low, "%s/low", root); snprintf(top, sizeof top, "%s/root", root); mkdir(low, 0755); mkdir(top, 0755);
	snprintf(buf, sizeof buf, "%s/up", root); mkdir(buf, 0755); chown(buf, uid, (gid_t)-1); snprintf(buf, sizeof buf, "%s/work", root); mkdir(buf, 0755);
	const char *m1[] = { "mount", "-t", "squashfs", "-o", "loop,ro", img, low, NULL };
	if (run(m1, NULL)) { slurm_error("pyxis: failed to create container filesystem"); slurm_error("pyxis:     [ERROR] Invalid image format: %s", img); return -1; }
	if (strncmp(img, base, strlen(base)) == 0) unlink(img);
	snprintf(opt, sizeof opt, "lowerdir=%s,upperdir=%s/up,workdir=%s/work", low, root, root);
	if (mount("overlay", top, "overlay", 0, opt)) { slurm_error("pyxis: overlay: %s", strerror(errno)); return -1; }
	/* image environment (/etc/environment as enroot import writes it) wins unless --container-env names it */
	snprintf(buf, sizeof buf, "%s/etc/environment", top);
	FILE *f = fopen(buf, "r"); char line[8192];
	while (f && fgets(line, sizeof line, f)) {
		char *e = strchr(line, '='); line[strcspn(line, "\n")] = 0;
		if (!e || line[0] == '#') continue;
		size_t n = (size_t)(e - line); char *v = e + 1; size_t l = strlen(v);
		if (l > 1 && (v[0] == '"' || v[0] == '\'') && v[l - 1] == v[0]) { v[l - 1] = 0; v++; }
		if (in_list(envs, line, n)) continue;
		*e = 0; spank_setenv(sp, line, v, 1); if (!strcmp(line, "PATH")) setenv("PATH", v, 1);
	}
	if (f) fclose(f);
	snprintf(buf, sizeof buf, "%s/etc/box.workdir", top);
	static char iwd[1024]; if (!wd && (f = fopen(buf, "r"))) { if (fgets(iwd, sizeof iwd, f)) { iwd[strcspn(iwd, "\n")] = 0; wd = iwd; } fclose(f); }
	static const char *sys[] = { "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", NULL };
	for (int i = 0; sys[i]; i++) if (!access(sys[i], F_OK) && bind_one(top, sys[i], sys[i], NULL)) return -1;
	snprintf(buf, sizeof buf, "%s/tmp", top); mkdir(buf, 01777); if (mount("tmp", buf, "tmpfs", 0, "mode=1777")) return -1;
	struct passwd *pw = getpwuid(uid);
	if (home && pw && bind_one(top, pw->pw_dir, pw->pw_dir, NULL)) return -1;
	char *save = NULL, *copy = mounts ? strdup(mounts) : NULL;
	for (char *m = copy ? strtok_r(copy, ",", &save) : NULL; m; m = strtok_r(NULL, ",", &save)) {
		char *s2 = NULL, *src = strtok_r(m, ":", &s2), *dst = strtok_r(NULL, ":", &s2), *fl = strtok_r(NULL, ":", &s2);
		if (bind_one(top, src, dst ? dst : src, fl)) return -1;
	}
	/* slurmstepd goes to the job's directory next: let it exist, task_init below leaves it again */
	char pwd[2048]; if (spank_getenv(sp, "PWD", pwd, sizeof pwd) == ESPANK_SUCCESS && pwd[0] == '/') { snprintf(buf, sizeof buf, "%s%s/x", top, pwd); mkparents(buf); }
	if (wd) { inside_wd = wd; snprintf(buf, sizeof buf, "%s%s/x", top, wd); mkparents(buf); }
	if (writable == -1 && spank_getenv(sp, "PYXIS_CONTAINER_WRITABLE", pwd, sizeof pwd) == ESPANK_SUCCESS) writable = is_yes(pwd);
	if (writable != 1 && mount(NULL, top, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL)) { slurm_error("pyxis: remount: %s", strerror(errno)); return -1; }
	if (chdir(top) || chroot(".")) { slurm_error("pyxis: chroot: %s", strerror(errno)); return -1; }
	return 0;
}

int slurm_spank_task_init_privileged(spank_t sp, int ac, char **av)
{
	(void)ac; (void)av;
	int rc = start(sp);
	if (rc && failed) *failed = 1;
	return rc;
}

/* the last words of a container that did not start, after those of spank */
int slurm_spank_task_exit(spank_t sp, int ac, char **av)
{
	(void)sp; (void)ac; (void)av;
	if (failed && *failed) slurm_error("pyxis: child %d failed with error code: 1", (int)getpid());
	return 0;
}

/* slurmstepd changes to the job's directory before this hook; put the task where the container says */
int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
	(void)sp; (void)ac; (void)av;
	if (image && chdir(inside_wd)) { slurm_error("pyxis: couldn't chdir to %s: %s", inside_wd, strerror(errno)); return -1; }
	return 0;
}
