function deaf (varargin)
% DEAF  Does not end when it is interrupted.
  disp ('deaf')
  unwind_protect
    pause (60);
  unwind_protect_cleanup
    system ('trap "" INT; sleep 60');
  end_unwind_protect
end
