function calibrate (folder, varargin)
% CALIBRATE  A function of a package.
  disp ('calibrated')
end
