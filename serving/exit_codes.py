"""The exit statuses of the serving side's commands; those of the trainer are in trainer/errors.py."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

EXIT_STATUS = """exit status:
  0    done
  1    a request failed, or no version became available in time
  2    wrong usage, or an input file that cannot be used
  130  interrupted
"""
